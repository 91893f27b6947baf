"""Models as GGUF files.

model: a merged model as one file; an adapter as a GGUF LoRA.
architecture: names and numbers of the architecture.
tokenizer: vocabulary, merges and chat template.
writer: a GGUF file, tensor by tensor.
quantization_mix: the type of each tensor.
ggml: quantization by llama.cpp's library.
llama_cpp_package: the place of that library.
"""
