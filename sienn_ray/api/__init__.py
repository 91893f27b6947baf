"""The REST API: a FastAPI application that keeps no state.

The application:

app: put together from routes and middlewares.
routes/: a module for each resource.
schemas/: bodies of requests and responses.
deps: the backends, as protocols, and the dependency that gives them to routes.
cluster: the Ray cluster, as a protocol.

Requests and errors:

request_id: an id for every request.
request_metrics: the duration of every request, by route.
body_limits: the size limit of request bodies.
websockets: errors of WebSocket connections.
errors: the mapping from errors to HTTP.
error_shapes: the two JSON shapes of errors.
statuses: meanings of the statuses of errors.
validation: messages of validation errors.
ids: ids in paths and bodies, checked.
paging: query parameters of lists that come in pages.

The OpenAPI document:

openapi: the document.
links: links from a response to the next operations.
docs: the interactive pages, /docs and /redoc.

Uploads and downloads:

uploads: slots, threads and deadlines of uploads.
multipart: the file in a multipart body, while it arrives.
threads: blocking work that is never left alone.
attachments: a stored file as a download.
stored_file: a local file as a response, with Range requests.
export_links: links to the files of exports.
signed_links: HMAC signatures of such links.
deleted_exports: deletion of exports with their files.

Lists and look-ups:

completed: completed jobs, which alone have an adapter.
base_models: the check that a base model exists, with a deadline.
job_pages: lists of jobs, in pages or whole.
dataset_pages: pages of the list of datasets.
attempt_logs: the logs of a job's attempts as one stream.
shared_statistics: statistics of datasets, computed once for all clients.

Answers from models:

asked_models: the base model or adapter that a request is for.
start_wait: `Prefer: wait`, the time to wait for an engine's start.
generation: several requests to one base model at the same time.
streams: several streams at the same time, cancelled together.
event_streams: server-sent events.
answers: fields of an answer.
comparison: one question for a base model and its adapters.
openai_run: one request of the OpenAI API, from body to response.
openai_output: parts that all answers of the OpenAI API share.
chat_output: answers of /v1/chat/completions.
completion_output: answers of /v1/completions.

Health and metrics:

monitoring: the health checks, CPU meter and metrics sender of a process.
health_checks: checks of the service and everything beneath.
check_runner: checks with deadlines that may hang.
machine: CPU, memory and disk of the machine or container.
metrics_flusher: sends a process's metrics to the tracker.
prometheus: the tracker's samples as Prometheus text.
"""
