"""The engines that are held to the suite, each of which every test here starts.

An engine joins by an entry in `ENGINES`; what it needs that not every machine has goes into its marks.
"""

from __future__ import annotations

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

Load = Callable[[str, Settings], Engine]
Start = Callable[..., Engine]


def of_kind(kind: EngineKind) -> Load:
    """An engine as a replica loads it."""
    return lambda base_model, settings: load_engine(base_model, settings.model_copy(update={"engine": kind}))


ENGINES: dict[str, Load] = {
    EngineKind.BUILTIN: of_kind(EngineKind.BUILTIN),
    EngineKind.VLLM: of_kind(EngineKind.VLLM),
    "plain": PlainEngine,
}


def here() -> list[str]:
    """The engines that this Python can start, which are all but vLLM where it isn't installed."""
    return [name for name in ENGINES if name != EngineKind.VLLM or installed_version() is not None]


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


@pytest.fixture
def engine(start: Start) -> Engine:
    """An engine with the usual settings."""
    return start()
