"""The file that a command downloads to: checked before anything is asked for, and written in one piece."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from sienn_ray.cli.client import end

Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace a file that is there.")]


def check_target(target: Path, *, overwrite: bool) -> None:
    """End the program with a sentence where nothing can be written to a path."""
    folder = target.parent
    if target.is_dir():
        end(f"{target} is a folder; name a file in it with --output")
    if not folder.is_dir():
        end(f"the folder {folder} isn't there; make it with `mkdir -p {folder}`, or name another with --output")
    if not os.access(folder, os.W_OK | os.X_OK):
        end(f"nothing can be written to the folder {folder}; name another with --output")
    if target.exists() and not overwrite:
        end(f"{target} is there already; name another file with --output, or replace it with --overwrite")


def check_room(target: Path, size_bytes: int) -> None:
    """End the program with a sentence where a file of this size has no room."""
    free = shutil.disk_usage(target.parent).free
    if size_bytes > free:
        end(
            f"{target} takes {size_bytes} bytes, but {free} are free in {target.parent}; make room, or name another "
            "place with --output"
        )


@contextmanager
def written(partial: Path, *, keep: bool = False) -> Iterator[None]:
    """Write to a partial file; what goes wrong with the disk ends the program with a sentence.

    Args:
        partial: The file.
        keep: Whether it stays when the user interrupts, so that the same command goes on with it.
    """
    try:
        yield
    except OSError as error:
        partial.unlink(missing_ok=True)
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        words = "the disk is full" if full else error.strerror or type(error).__name__
        end(
            f"{partial.parent} couldn't be written to: {words}; what was downloaded is deleted, try again with --output"
        )
    except KeyboardInterrupt:
        if keep:
            typer.echo(f"interrupted: {partial} stays, and the same command goes on with it", err=True)
        else:
            partial.unlink(missing_ok=True)
            typer.echo("interrupted: what was downloaded is deleted", err=True)
        raise
    except BaseException:
        if not keep:
            partial.unlink(missing_ok=True)
        raise
