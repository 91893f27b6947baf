"""The engines that are held to the suite, each of which every test here starts.

An engine joins by an entry in `ENGINES`. vLLM is held to it where it is installed: its core is started once and serves
all tests, since a start takes a minute.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from deployments.engine import load_engine
from sienn_ray.inference.engine import Engine
from sienn_ray.inference.vllm_engine.versions import installed_version
from sienn_ray.settings import EngineKind, Settings
from sienn_ray.storage import Storage
from tests.support.tiny_model import TINY_ID
from tests.unit.inference.conformance.plain_engine import PlainEngine
from tests.unit.inference.conformance.shared_core import SharedCore

Load = Callable[[str, Settings], Engine]
Start = Callable[..., Engine]


def of_kind(kind: EngineKind) -> Load:
    """An engine as a replica loads it."""
    return lambda base_model, settings: load_engine(base_model, settings.model_copy(update={"engine": kind}))


_shared_core = SharedCore()
ENGINES: dict[str, Load] = {
    EngineKind.BUILTIN: of_kind(EngineKind.BUILTIN),
    EngineKind.VLLM: _shared_core.engine,
    "plain": PlainEngine,
}


# Its tests are of vLLM alone.
collect_ignore = [] if installed_version() else ["test_vllm_core.py"]


def here() -> list[Any]:
    """The engines that this Python can start, which are all but vLLM where it isn't installed."""
    names: list[Any] = [name for name in ENGINES if name != EngineKind.VLLM]
    if installed_version() is None:
        print("vLLM isn't installed in this Python, so it isn't held to the suite of engines", file=sys.stderr)
        return names
    # What vLLM imports warns of what it uses itself, and whichever test comes first waits for its start.
    marks = [pytest.mark.filterwarnings("ignore"), pytest.mark.timeout(900)]
    return [*names, pytest.param(EngineKind.VLLM, marks=marks)]


@pytest.fixture(scope="session", autouse=True)
def shared_core() -> Iterator[SharedCore]:
    """The core that all engines on vLLM share."""
    yield _shared_core
    _shared_core.close()


@pytest.fixture(params=here())
def start(
    request: pytest.FixtureRequest,
    settings: Settings,
    storage: Storage,
    hub_home: Path,
) -> Iterator[Start]:
    """Starts an engine, with other settings or for another base model, and ends it after the test."""
    with ExitStack() as stack:

        def start(base_model: str = TINY_ID, **changes: Any) -> Engine:
            engine = ENGINES[request.param](base_model, settings.model_copy(update=changes))
            stack.callback(engine.close)
            return engine

        yield start
    _shared_core.tidy()


@pytest.fixture
def engine(start: Start) -> Engine:
    """An engine with the usual settings."""
    return start()
