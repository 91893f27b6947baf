"""Serve on this machine."""

from __future__ import annotations

import os
import sys

import typer


def serve(context: typer.Context) -> None:
    """Serve on this machine, in the foreground (--host, --port, --home)."""
    # Another program, not an import: the composition root is above this layer, and Ctrl-C goes to it directly.
    os.execv(sys.executable, [sys.executable, "-m", "deployments.local", *context.args])  # nosec B606 # our own program
