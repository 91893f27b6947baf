"""Bodies of requests and responses, by resource.

ids: ids in paths and bodies, checked.
common: strictness, timestamps, the shape of errors, example ids.
health: health checks.
metrics: metrics.
api_keys: API keys, and the caller.
tokens: access tokens, and the keys that they are signed with.
sessions: sessions of browsers.
audit_log: entries of the audit log.
limits: quotas of owners.
usage: usage by day, key and model.
dataset_imports: imports of datasets.
datasets: datasets, their rows, and validation reports.
statistics: statistics of datasets.
rendered_rows: rows as the model reads them.
finetuning: the start of a fine-tune.
revisions: revisions of base models.
hyperparameters: hyperparameters as fields of a request.
jobs: jobs and their status.
job_history: events and curves.
sampling: sampling fields of requests.
tools: tools and their calls.
messages: messages of a conversation.
echoed_messages: messages that clients send back, under the names of other servers.
continuation: the assistant's last message, gone on with.
inference: answers from an adapter or base model.
demo: a question that names no job.
exports: exports.
webhooks: webhooks and their deliveries.
models: base models of the catalog.
openai_requests: fields that requests of the OpenAI API share.
openai_answers: parts that answers of the OpenAI API share.
chat: /v1/chat/completions.
completions: /v1/completions.
"""
