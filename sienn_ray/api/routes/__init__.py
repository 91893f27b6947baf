"""Routes of the REST API; a module for each resource, none of which imports another.

health: health of the service and of everything beneath.
metrics: numbers for people and for Prometheus.
api_keys: create, list, rotate and revoke API keys.
tokens: access tokens for API keys, and the keys that they are signed with.
sessions: sessions of browsers, begun and ended.
audit_log: read the audit log.
limits: see and set quotas of owners.
usage: usage by day, key and model.
uploads: upload and validate dataset files.
datasets: list, show, download and delete datasets.
dataset_imports: import datasets from the hub.
dataset_versions: append or replace rows, list versions, and compare them.
dataset_statistics: counts of a dataset's rows and tokens.
rendered_rows: rows as the model reads them.
finetuning: start fine-tunes.
jobs: list, show, cancel, pause, resume, retry and delete jobs.
job_history: events and curves of a job.
job_logs: the log of a job's training program.
live: live updates of jobs and numbers.
inference: ask an adapter; compare it with its base model.
demo: ask the newest adapter, as a page that knows no job does.
export_formats: the formats of exports.
export: request, watch, cancel and delete exports.
downloads: download an adapter or the file of an export.
webhooks: create, list, change and delete webhooks; list and repeat deliveries.
models: the catalog of base models.
openai_models: /v1/models.
chat: /v1/chat/completions.
completions: /v1/completions.
"""
