"""The engine: continuous batching over one base model and any of its adapters.

The interface:

engine: requests and answers of an engine, as a protocol; without torch.
applications: engines as Serve applications.
metered: an engine that counts.
blocking: the whole answer to one request.

Batching:

batching_engine: the engine.
generation: one request, from the queue to its last token.
request_queue: requests that wait, in fair order over adapters.
batch: the tokens of the next step: decoding, and chunked prefill.
adapter_cache: loaded adapters; the least recently used is evicted first.

The base model:

model_runner: one step over the tokens of many requests.
decoder_layers: decoder layers of the Llama kind, in few calls.
paged_attention: attention over keys and values in blocks.
kv_blocks: the blocks of the key/value cache, and the prefix cache.
batched_lora: LoRA with an adapter of its own for each token.
lora_weights: adapters in PEFT's format.
packed_linear: linear layers with weights laid out for few rows.
linear_layouts: the layouts of such weights, and their products.
linear_choice: the fastest layout of each shape, measured once per machine.

Sampling:

sampling: the next tokens of many requests.
penalties: penalties on tokens that were generated.
truncation: top-k, top-p and min-p.
candidates: the largest entries of long rows.
drawing: random draws from logits, reproducible for each request.
logprobs: log-probabilities as the model gave them.

Text:

vocabulary: tokens as bytes and as text.
detokenizer: whole characters from tokens, one by one.
stop_strings: the end of an answer at a stop string.
text_stream: the text of an answer while tokens come.
"""
