"""The OpenAPI document and the pages that show it.

document: additions to what FastAPI derives from the routes.
links: links from a response to the next operations.
security: security schemes and the scopes of operations.
pages: the interactive pages, /docs and /redoc.
"""
