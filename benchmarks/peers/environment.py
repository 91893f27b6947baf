"""A virtual environment for the peers of `benchmarks/training.py`, so that the product's own stays as it is.

Run: `python benchmarks/peers/environment.py` makes it if need be, and prints the path of its Python.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
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
    python = folder / "bin" / "python"
    stamp = folder / ".installed"
    wanted = _requirements()
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if not (stamp.is_file() and stamp.read_text() == "\n".join(wanted)):
            _install(folder, python, wanted)
            stamp.write_text("\n".join(wanted))
    return python


def _requirements() -> list[str]:
    """The pins, and the build of torch that runs here: a bare version could bring one for other hardware."""
    lines = (line.partition("#")[0].strip() for line in REQUIREMENTS.read_text().splitlines())
    return [*filter(None, lines), f"torch=={version('torch')}"]


def _install(folder: Path, python: Path, requirements: list[str]) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    print(f"installing the peers into {folder}", file=sys.stderr)
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    # What pip says goes to standard error: standard output is for the path alone.
    subprocess.run(
        [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *requirements],
        check=True,
        stdout=sys.stderr,
    )


if __name__ == "__main__":
    print(peers_python())
