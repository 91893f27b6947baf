"""Questions to engines and the answers in each API's shape.

asked_models: the base model or adapter that a request is for.
start_wait: `Prefer: wait`, the time to wait for an engine's start.
fan_out: several requests to one base model at the same time.
fields: fields of an answer.
comparison: one question for a base model and its adapters.
openai_run: one request of the OpenAI API, from body to response.
openai_output: parts that all answers of the OpenAI API share.
written_calls: calls of tools as models write them.
message_reader: reasoning, content and calls of a message, while it comes.
chat_output: answers of /v1/chat/completions.
completion_output: answers of /v1/completions.
"""
