"""A base model as the engine computes it.

runner: a base model made ready for steps, and checked.
step_forward: the forward pass of a step.
decode_graphs: decoding steps captured as CUDA graphs.
filled_rows: decoding steps filled up to few sizes.
step_halves: a step that memory is too short for, divided.
step_rows: what a step computes of each request.
decoder_layers: decoder layers of the Llama kind, in few calls.
paged_attention: attention over keys and values in blocks.
paged_ways: a cache with the attention that suits it.
in_place_attention: the same on a CPU, which reads the cache in place.
gathered_attention: the same on a GPU, in one call for many requests.
row_groups: the requests that one such call attends for.
kv_cache: keys and values, in the layouts that CPUs and GPUs read best.
device_memory: the shares of a GPU's memory that the cache and an attention call get.
kv_blocks: the blocks of the key/value cache, and the prefix cache.
batched_lora: LoRA with an adapter of its own for each token.
lora_layers: the base model's linear layers, replaced by such.
lora_stack: the adapters in use, stacked in all layers.
adapter_places: the memory of these stacks.
flat_lora: an adapter as one tensor, which comes to a GPU in one copy.
lora_weights: adapters in PEFT's format.
packed_linear: linear layers with weights laid out for few rows.
linear_layouts: the layouts of such weights, and their products.
linear_choice: the fastest layout of each shape, measured once per machine.
"""
