"""Live updates of jobs and of the service's numbers, over server-sent events and WebSockets.

hub: one question to the tracker for all listeners of a replica.
items: news with their JSON, written once for all.
log_lines: numbered lines of a job's log.
log_feeds: one follower of a job's log for all listeners of a replica.
places: where in the news and the log a listener is.
updates: what one listener is told, in order and once.
shared_calls: one call for all who ask the same at a time.
shared_numbers: one reading of the service's numbers for all listeners of an owner.
sockets: the same over a WebSocket.
"""
