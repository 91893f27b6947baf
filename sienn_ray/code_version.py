"""Version of the running code: the package's version and a hash of its source files."""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path

import sienn_ray

_DIGEST_CHARS = 12


@functools.cache
def code_version() -> str:
    """Return the version of the code that this process runs, such as `0.2.0+3f6c0a91d2be`.

    The hash tells edited code apart that has the same version number, as between two releases: a redeploy has to
    replace what runs the old one.
    """
    return f"{sienn_ray.__version__}+{digest_of_sources(Path(__file__).parent)}"


def digest_of_sources(folder: Path) -> str:
    """Return a hash over names and contents of all Python files below a folder."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        content = path.read_bytes()
        digest.update(f"{path.relative_to(folder).as_posix()} {len(content)}\n".encode())
        digest.update(content)
    return digest.hexdigest()[:_DIGEST_CHARS]
