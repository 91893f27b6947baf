"""Requests and responses below the routes: errors, limits, ids, uploads, downloads, streams."""
