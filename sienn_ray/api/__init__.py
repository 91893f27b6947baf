"""The REST API: a FastAPI application that keeps no state.

app: put together from routes and middlewares.
routes/: a module for each resource.
schemas/: bodies of requests and responses.
deps: the backends, as protocols, and the dependency that gives them to routes.
cluster: the Ray cluster, as a protocol.
http/: requests and responses below the routes: errors, limits, ids, uploads, downloads, streams.
openapi/: the OpenAPI document and the pages that show it.
answers/: questions to engines and the answers in each API's shape.
exports/: download links and deletion of exports.
lists/: pages and logs that several routes share.
monitoring/: health checks and metrics.
"""
