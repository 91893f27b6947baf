"""Garbage collection, made rare, in the processes of a fine-tune."""

from __future__ import annotations

import gc

# Python's own is 700. Importing PyTorch and transformers makes millions of objects that stay, and looking through them
# for garbage each time takes a quarter of the import.
_NEW_OBJECTS = 10_000


def collect_rarely() -> None:
    """Look for garbage less often than Python does by itself."""
    gc.set_threshold(_NEW_OBJECTS, *gc.get_threshold()[1:])
