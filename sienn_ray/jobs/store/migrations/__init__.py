"""Migrations of the job database, by Alembic.

env: runs them on the store's connection.
versions/: one module for each change.
"""
