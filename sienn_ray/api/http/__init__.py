"""Requests and responses below the routes: errors, limits, ids, uploads, downloads, streams.

request_id: an id for every request.
request_metrics: the duration of every request, by route.
authentication: callers of requests, by their credentials.
answer_limits: places and tokens of each key's answers.
usage: requests and bytes of each caller.
rate_limits: refusal of requests beyond their client's limits.
token_limits: refusal of guesses at keys and tokens.
body_limits: the size limit of request bodies.
transfer_rates: the lowest mean rate of bodies, both ways.
public_urls: URLs of this service as its clients reach it.
form_fields: plain fields of a form with a file.
places: places for requests that take long, by kind.
websockets: errors of WebSocket connections.
errors: the mapping from errors to HTTP.
error_shapes: the JSON shapes of errors.
other_paths: paths of other APIs.
methods: methods of HTTP that change nothing.
statuses: meanings of the statuses of errors.
render_queries: query parameters that say how rows become text.
upper_bounds: upper bounds that settings raise.
known_names: names that a request may have.
validation: messages of validation errors.
alternatives: one fault for a field of several kinds.
uploads: slots, threads and deadlines of uploads.
multipart: the file in a multipart body, while it arrives.
threads: blocking work that is never left alone.
attachments: a stored file as a download.
stored_file: a local file as a response, with Range requests.
streams: several streams at the same time, cancelled together.
event_streams: server-sent events.
"""
