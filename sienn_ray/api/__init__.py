"""The REST API: a FastAPI application that keeps no state.

app: put together from routes and middlewares.
routes/: a module for each resource.
schemas/: bodies of requests and responses.
deps: the backends, as protocols, and the dependency that gives them to routes.
dataset_files: dataset files in requests, and their check.
registrations: registration of uploaded datasets with the tracker.
cluster: the Ray cluster, as a protocol.
http/: requests and responses below the routes: errors, limits, ids, uploads, downloads, streams.
access/: authentication, scopes, and owners.
oidc/: an outside issuer: its tokens, and logins at it.
audit/: what is written into the audit log of requests.
browsers/: guards against other web sites' pages in a browser.
openapi/: the OpenAPI document and the pages that show it.
answers/: questions to engines and the answers in each API's shape.
exports/: download links and deletion of exports.
live/: live updates.
outbound/: checks of URLs that users name.
lists/: pages and logs that several routes share.
monitoring/: health checks and metrics.
"""
