"""Fine-tuned models in the formats of other programs: GGUF, Ollama, Hugging Face.

One export:

make: read, write and publish one export.
options: the format and its choices.
publication: the folder of an export, published whole or not at all.
leftovers: folders of exports that were never finished.
archive: ZIP archives that stream.
sink: sinks for files, and the functions that write them.

Weights:

checkpoint_reader: a base model's tensors, one at a time.
adapter_reader: an adapter's matrices and configuration.
merged_weights: tensors with the adapter merged in.

Hugging Face:

huggingface: shards, configuration, tokenizer and model card.
safetensors_writer: safetensors files, tensor by tensor.

GGUF:

gguf_model: a merged model as one file; an adapter as a GGUF LoRA.
gguf_architecture: names and numbers of the architecture.
gguf_tokenizer: the tokenizer.
gguf_writing: the file, tensor by tensor.
quantization_mix: the type of each tensor.
ggml: quantization by llama.cpp's own code.
llama_cpp_package: the place of that code.

Ollama:

ollama: the Modelfile.
chat_turns: a chat template as the strings around each turn.
"""
