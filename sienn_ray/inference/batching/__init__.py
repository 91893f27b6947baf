"""The engine: one batch for all requests and adapters.

engine: requests in, deltas out, on threads of its own.
loading: its base model, made ready for steps on its device.
generation: one request, from the queue to its last token.
fair_queue: requests that wait, in fair order over adapters.
step_plan: the tokens of the next step: decoding, and chunked prefill.
scheduler: continuous batching: requests join and leave at every step.
device_faults: errors after which a process can't compute any more.
"""
