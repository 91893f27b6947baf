"""Virtual environments for the peers of the benchmarks, so that the product's own stays as it is.

Run: `python benchmarks/peers/environment.py` makes the one for training if need be, and prints the path of its Python.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from filelock import FileLock

REPOSITORY = Path(__file__).resolve().parents[2]
REQUIREMENTS = Path(__file__).with_name("requirements.txt")
DEFAULT_FOLDER = REPOSITORY / ".bench" / "peers"


def peers_python(folder: Path = DEFAULT_FOLDER) -> Path:
    """The Python that has the peers installed; the first call installs them, which takes minutes.

    Args:
        folder: Where the environment is, or is made; it is made anew when the requirements have changed.

    Raises:
        subprocess.CalledProcessError: pip can't install the requirements.
    """
    # The very build of torch that runs here: a bare version could bring one for other hardware.
    return python_with([*requirements_in(REQUIREMENTS), f"torch=={version('torch')}"], folder=folder)


def python_with(requirements: Sequence[str], *, alone: Sequence[str] = (), folder: Path) -> Path:
    """The Python of an environment, which is made if need be.

    Args:
        requirements: What to install.
        alone: What to install after that, without what it asks for.
        folder: Where the environment is, or is made; it is made anew when the requirements have changed.

    Raises:
        subprocess.CalledProcessError: pip can't install the requirements.
    """
    python = folder / "bin" / "python"
    stamp = folder / ".installed"
    wanted = "\n".join([*requirements, *alone])
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if not (stamp.is_file() and stamp.read_text() == wanted):
            _install(folder, python, [requirements, ["--no-deps", *alone]] if alone else [requirements])
            stamp.write_text(wanted)
    return python


def requirements_in(path: Path) -> list[str]:
    """The lines of a file of requirements, without comments."""
    lines = (line.partition("#")[0].strip() for line in path.read_text().splitlines())
    return list(filter(None, lines))


def _install(folder: Path, python: Path, steps: Sequence[Sequence[str]]) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    print(f"installing peers into {folder}", file=sys.stderr)
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    # What pip says goes to standard error: standard output is for the path alone.
    for step in steps:
        subprocess.run(
            [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *step],
            check=True,
            stdout=sys.stderr,
        )


if __name__ == "__main__":
    print(peers_python())
