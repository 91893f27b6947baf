"""Looks for secrets in the files of the repository: `python -m tools.secret_scan`.

The rules are Kingfisher's, for the formats of a few hundred services. Nothing is sent anywhere: whether a key is valid
isn't asked. A line that has to look like a secret ends with `kingfisher:ignore`, in a comment.
"""

from __future__ import annotations

import subprocess  # nosec B404 # no shell, and no words of users
import sys
import sysconfig
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]
FOUND = 200
_OPTIONS = (
    "--git-history=none",
    "--no-validate",
    "--no-update-check",
    "--redact",
    "--confidence=low",
    "--format=pretty",
)


def main() -> int:
    """Scan all files that git knows or would take; returns the exit code."""
    listed = subprocess.run(  # nosec B603, B607 # no shell, and no words of users
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        check=False,
    )
    if listed.returncode != 0:
        print("Secrets are not looked for: this is no git checkout.")
        return 0
    paths = [ROOT / name for name in listed.stdout.decode().split("\0") if name]
    found = scan([path for path in paths if path.is_file()])
    if found:
        print(f"{found}\nTake these out, and replace the keys: whoever has the commit has them.")
        return 1
    print(f"No secrets in {len(paths)} files.")
    return 0


def scan(paths: Sequence[Path]) -> str:
    """Return what was found in some files, in words and without the secrets; empty where there is nothing.

    Raises:
        RuntimeError: The scanner failed.
    """
    # Compiling the rules takes ten seconds, scanning half a one.
    cache = Path(sysconfig.get_path("data")) / "kingfisher"
    command = [str(Path(sysconfig.get_path("scripts")) / "kingfisher"), "scan", *_OPTIONS, f"--rule-cache-dir={cache}"]
    result = subprocess.run([*command, *map(str, paths)], capture_output=True, text=True, check=False)  # nosec B603 # no shell
    if result.returncode not in {0, FOUND}:
        raise RuntimeError(f"kingfisher ended with {result.returncode}: {result.stderr[-2000:]}")
    return result.stdout if result.returncode == FOUND else ""


if __name__ == "__main__":
    sys.exit(main())
