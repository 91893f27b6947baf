"""vLLM's core, for real: its processes end with their parent, and its death ends the engine.

Collected where vLLM is installed; see `conftest.py`.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sienn_ray.errors import CapacityError, EngineError
from sienn_ray.inference.blocking import generate
from sienn_ray.inference.engine import Engine
from sienn_ray.inference.vllm_engine.engine import VllmEngine
from sienn_ray.settings import EngineKind, Settings
from sienn_ray.storage import Storage
from tests.support.tiny_model import TINY_ID
from tests.unit.inference.asking import ENDLESS, GREEDY, Listener, copy_of, edit_config, sampled, with_adapter
from tests.unit.inference.conformance.conftest import of_kind
from tests.unit.inference.conformance.shared_core import SharedCore

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.timeout(900)]

WAIT_S = 60.0
# A replica in short: loads the base model, begins an answer that takes long, and says which processes vLLM has.
REPLICA = f"""
import json, sys
from sienn_ray.inference.engine import GenerationRequest, SamplingParams
from sienn_ray.inference.vllm_engine.engine import VllmEngine
from sienn_ray.settings import Settings
if __name__ == "__main__":
    settings = Settings(env="test", home=sys.argv[1], engine_num_cpus=1, engine_kv_cache_bytes=16 << 20)
    engine = VllmEngine({TINY_ID!r}, settings)
    asked = GenerationRequest.ask("What is Python?", sampling=SamplingParams(max_new_tokens=1_900))
    engine.submit(asked, lambda delta: None)
    print(json.dumps(engine.core.process_ids), flush=True)
    sys.stdin.read()
"""


@pytest.fixture(scope="module")
def builtin_and_vllm(shared_core: SharedCore) -> Callable[[Settings], tuple[Engine, Engine]]:
    return lambda settings: (of_kind(EngineKind.BUILTIN)(TINY_ID, settings), shared_core.engine(TINY_ID, settings))


@pytest.fixture
def both(
    builtin_and_vllm: Callable[[Settings], tuple[Engine, Engine]], settings: Settings, storage: Storage, hub_home: Path
) -> Iterator[tuple[Engine, Engine]]:
    """The built-in engine, and vLLM."""
    engines = builtin_and_vllm(settings)
    yield engines
    for engine in engines:
        engine.close()


@pytest.mark.parametrize("adapter", [None, "plus", "minus", "half"])
def test_log_probabilities_are_those_of_the_builtin_engine(both: tuple[Engine, Engine], adapter: str | None) -> None:
    request = sampled(GREEDY, num_logprobs=5)
    builtin, vllm = (generate(each, with_adapter(adapter, request) if adapter else request) for each in both)
    assert builtin.logprobs is not None
    assert vllm.logprobs is not None
    assert (vllm.text, vllm.finish_reason) == (builtin.text, builtin.finish_reason)
    for ours, theirs in zip(builtin.logprobs, vllm.logprobs, strict=True):
        assert (theirs.token_id, theirs.token_bytes) == (ours.token_id, ours.token_bytes)
        assert [each.token_id for each in theirs.top] == [each.token_id for each in ours.top]
        assert [each.logprob for each in theirs.top] == pytest.approx([each.logprob for each in ours.top], abs=1e-3)


def test_one_that_vllm_cannot_serve_is_told_with_a_way_out(
    both: tuple[Engine, Engine], storage: Storage, adapter_folders: dict[str, Path], tmp_path: Path
) -> None:
    folder = copy_of(adapter_folders["plus"], tmp_path)
    edit_config(folder, use_dora=True)
    storage.publish(folder, "adapters/dora")
    with pytest.raises(EngineError, match=r"^adapters/dora: the adapter uses DoRA .*SIENN_ENGINE=builtin"):
        generate(both[1], with_adapter("dora"))
    assert generate(both[1], with_adapter("plus")).num_generated_tokens == 12


def test_an_adapter_is_forgotten_once_it_is_evicted(
    shared_core: SharedCore,
    settings: Settings,
    storage: Storage,
    hub_home: Path,
    adapter_folders: dict[str, Path],
    tmp_path: Path,
) -> None:
    engine = shared_core.engine(TINY_ID, settings.model_copy(update={"adapter_cache_max_count": 1}))
    assert isinstance(engine, VllmEngine)
    before = engine.core.adapters
    folder = copy_of(adapter_folders["plus"], tmp_path)
    for name in ("first", "second", "third"):
        (folder / "README.md").write_text(name)
        storage.publish(folder, f"adapters/{name}")
        assert generate(engine, with_adapter(name)).num_generated_tokens == 12
    wait_until(lambda: len(engine.core.adapters - before) == 1)
    engine.close()


def wait_until(is_so: Callable[[], bool]) -> None:
    deadline, pause = time.monotonic() + WAIT_S, threading.Event()
    while not is_so():
        assert time.monotonic() < deadline
        pause.wait(0.05)


def is_alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_until_gone(processes: list[int]) -> None:
    wait_until(lambda: not any(map(is_alive, processes)))


def test_a_replica_that_is_killed_leaves_no_process(tmp_path: Path, hub_home: Path) -> None:
    program = tmp_path / "replica.py"
    program.write_text(REPLICA)
    variables = {"HF_HUB_CACHE": str(hub_home / "hub"), "HF_HUB_OFFLINE": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    replica = subprocess.Popen(
        [sys.executable, program, tmp_path / "home"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **variables},
    )
    with replica:
        assert replica.stdout is not None
        processes = json.loads(replica.stdout.readline())
        assert len(processes) >= 2
        replica.kill()
    wait_until_gone(processes)


def test_a_core_that_dies_ends_every_request(settings: Settings, storage: Storage, hub_home: Path) -> None:
    engine = VllmEngine(TINY_ID, settings.model_copy(update={"engine_max_batch": 1}))
    processes = engine.core.process_ids
    running, waiting, refused = Listener(), Listener(), Listener()
    engine.submit(ENDLESS, running)
    running.wait_for_text()
    engine.submit(GREEDY, waiting)
    assert (engine.failure, engine.stuck_s < WAIT_S) == (None, True)
    for process in processes:
        os.kill(process, signal.SIGKILL)
    for listener in (running, waiting):
        assert isinstance(listener.wait().error, CapacityError)
    assert engine.failure is not None
    with pytest.raises(CapacityError, match="is being replaced"):
        engine.submit(GREEDY, refused)
    engine.close()
    wait_until_gone(processes)
