"""A base model as the engine computes it.

runner: one step over the tokens of many requests.
decoder_layers: decoder layers of the Llama kind, in few calls.
paged_attention: attention over keys and values in blocks.
kv_blocks: the blocks of the key/value cache, and the prefix cache.
batched_lora: LoRA with an adapter of its own for each token.
lora_weights: adapters in PEFT's format.
packed_linear: linear layers with weights laid out for few rows.
linear_layouts: the layouts of such weights, and their products.
linear_choice: the fastest layout of each shape, measured once per machine.
"""
