"""Models as Hugging Face folders.

model: shards, configuration, tokenizer and model card.
safetensors_writer: safetensors files, tensor by tensor.
"""
