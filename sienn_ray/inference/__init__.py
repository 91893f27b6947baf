"""The engine: continuous batching over one base model and any of its adapters.

engine: requests and answers of an engine, as a protocol; without torch.
applications: engines as Serve applications.
adapter_kinds: the kind of engine that an adapter needs.
metered: an engine that counts.
assigned_device: the device that an engine may compute on.
transfers: copies between the host and the device, few and without waiting.
blocking: the whole answer to one request.
batching/: the engine: one batch for all requests and adapters.
model/: a base model as the engine computes it.
sampling/: the choice of each next token.
text/: texts from tokens.
vllm_engine/: vLLM as an engine.
requests/: requests and adapters as every engine needs them: rendered, checked, and ended.
"""
