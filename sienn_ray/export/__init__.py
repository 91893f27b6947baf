"""Fine-tuned models in the formats of other programs: GGUF, Ollama, Hugging Face.

make: read, write and publish one export.
options: the format and its choices.
publication: the folder of an export, published whole or not at all.
archive: ZIP archives that stream.
sink: sinks for files, and the functions that write them.
targets: export formats: names, choices, files, memory.
weights/: a base model's and an adapter's tensors, read and merged.
gguf/: models as GGUF files.
huggingface/: models as Hugging Face folders.
ollama/: models for Ollama.
"""
