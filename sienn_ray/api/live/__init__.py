"""Live updates of jobs and of the service's numbers, over server-sent events and WebSockets.

hub: one question to the tracker for all listeners of a replica.
updates: what one listener is told, in order and once.
sockets: the same over a WebSocket.
"""
