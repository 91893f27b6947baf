"""A hub cache of a test's own, and hubs on local ports."""

from __future__ import annotations

import functools
import json
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub import constants

from tests.support.fakes_hub import FakeHub, serving
from tests.support.tiny_model import TINY_COMMIT, add_to_hub_cache

HERE = Path(__file__).parent
# Files that take longest, by a minute or so each: one that begins last has the other processes wait for it. The order
# of pytest-xdist, by the number of tests in a file, would put them there.
LONGEST_FIRST = (
    "api/test_schemathesis.py",
    "training/test_sharding.py",
    "attacks/test_regular_expressions.py",
    "test_bare_machine.py",
    "benchmarks/test_gpu_check.py",
    "benchmarks/test_bare_loop.py",
    "training/test_gpu_steps.py",
    "training/test_workers.py",
)
AddToCache = Callable[..., Path]
UseEndpoint = Callable[[str], None]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    places = {HERE / name: place for place, name in enumerate(LONGEST_FIRST)}
    items.sort(key=lambda item: places.get(item.path, len(places)))


@pytest.fixture
def hub_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty hub cache; the library reads where it is when it is imported, so its constant is set."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hf" / "hub"))
    return tmp_path / "hf"


@pytest.fixture
def use_endpoint(monkeypatch: pytest.MonkeyPatch) -> UseEndpoint:
    """Lets the library's own functions ask another endpoint."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    huggingface_hub.close_session()

    def use(endpoint: str) -> None:
        api = huggingface_hub.HfApi(endpoint=endpoint)
        monkeypatch.setattr(huggingface_hub, "model_info", api.model_info)
        monkeypatch.setattr(huggingface_hub, "dataset_info", api.dataset_info)
        download = functools.partial(huggingface_hub.hf_hub_download, endpoint=endpoint)
        monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
        monkeypatch.setattr(huggingface_hub, "get_safetensors_metadata", api.get_safetensors_metadata)
        snapshot = functools.partial(huggingface_hub.snapshot_download, endpoint=endpoint)
        monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)

    return use


@pytest.fixture
def hub(use_endpoint: UseEndpoint) -> Iterator[FakeHub]:
    """A hub that knows no model yet."""
    hub = FakeHub()
    with serving(hub) as endpoint:
        use_endpoint(endpoint)
        yield hub
        huggingface_hub.close_session()


@pytest.fixture
def offline(use_endpoint: UseEndpoint) -> None:
    """A port at which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    use_endpoint(f"http://127.0.0.1:{port}")


@pytest.fixture
def add_to_cache(tmp_path: Path, hub_home: Path) -> AddToCache:
    """Puts a model's files into the hub cache; returns the folder that holds their contents."""

    def add(model_id: str, files: dict[str, bytes | dict[str, Any]], commit: str = TINY_COMMIT) -> Path:
        folder = tmp_path / "blobs" / commit / model_id
        folder.mkdir(parents=True)
        for name, content in files.items():
            (folder / name).write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
        add_to_hub_cache(folder, hub_home, model_id, commit)
        return folder

    return add
