from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sienn_ray.errors import CapacityError, EngineError
from sienn_ray.inference.vllm_engine.lora_files import LoraFiles
from sienn_ray.inference.vllm_engine.loras import Loras

WAIT_S = 60.0


class FakeLlm:
    """vLLM's side: adapters by number, each of which it reads from its folder."""

    def __init__(self) -> None:
        self.loaded: dict[int, str] = {}
        self.errored = False
        self.refusal: Exception | None = None
        self.may_remove = asyncio.Event()
        self.may_remove.set()

    async def add_lora(self, request: Any) -> None:
        await asyncio.sleep(0)
        if self.refusal is not None:
            raise self.refusal
        self.loaded[request.lora_int_id] = (Path(request.lora_path) / "adapter_config.json").read_text()

    async def remove_lora(self, number: int) -> None:
        await self.may_remove.wait()
        del self.loaded[number]


def has_files(request: Any) -> bool:
    return Path(request.lora_path).is_dir()


def request_of(name: str, number: int, path: str) -> Any:
    return SimpleNamespace(lora_name=name, lora_int_id=number, lora_path=path)


@pytest.fixture
def llm() -> FakeLlm:
    return FakeLlm()


@pytest.fixture
def own(tmp_path: Path) -> LoraFiles:
    return LoraFiles(tmp_path / "own")


@pytest.fixture
def loras(llm: FakeLlm, own: LoraFiles) -> Loras:
    return Loras(llm, own, request_of)


@pytest.fixture
def files(tmp_path: Path) -> Path:
    folder = tmp_path / "copy"
    folder.mkdir()
    (folder / "adapter_config.json").write_text("plain")
    return folder


def test_one_that_two_hold_stays_until_both_have_given_it_back(loras: Loras, llm: FakeLlm, files: Path) -> None:
    async def use() -> None:
        await asyncio.gather(loras.hold("a", files), loras.hold("a", files))
        assert llm.loaded == {1: "plain"}
        await loras.release("a")
        assert llm.loaded == {1: "plain"}
        await loras.release("a")
        assert llm.loaded == {}

    asyncio.run(use())


def test_a_request_that_runs_holds_it(loras: Loras, llm: FakeLlm, files: Path) -> None:
    async def use() -> None:
        await loras.hold("a", files)
        async with loras.held("a") as request:
            await loras.release("a")
            assert request.lora_int_id in llm.loaded
            assert has_files(request)
        assert llm.loaded == {}
        assert not has_files(request)

    asyncio.run(use())


def test_a_number_is_never_given_to_another_content(loras: Loras, llm: FakeLlm, files: Path) -> None:
    async def use() -> None:
        for name, number in [("a", 1), ("b", 2), ("a", 1), ("c", 3)]:
            await loras.hold(name, files)
            assert list(llm.loaded) == [number]
            await loras.release(name)

    asyncio.run(use())


def test_its_files_outlive_the_copy_that_they_were_taken_from(loras: Loras, llm: FakeLlm, files: Path) -> None:
    async def use() -> None:
        await loras.hold("a", files)
        (files / "adapter_config.json").unlink()
        async with loras.held("a") as request:
            assert (Path(request.lora_path) / "adapter_config.json").read_text() == "plain"

    asyncio.run(use())


def test_one_that_vllm_refuses_leaves_nothing(loras: Loras, llm: FakeLlm, files: Path, tmp_path: Path) -> None:
    async def use() -> None:
        llm.refusal = ValueError("unexpected modules\nTraceback")
        with pytest.raises(EngineError, match=r"vLLM can't load the adapter: unexpected modules$"):
            await loras.hold("a", files)
        assert not [each for each in (tmp_path / "own").glob("*/*") if each.is_dir()]
        llm.refusal = None
        await loras.hold("a", files)
        assert llm.loaded == {1: "plain"}

    asyncio.run(use())


def test_a_dead_core_is_no_fault_of_the_adapters(loras: Loras, llm: FakeLlm, files: Path) -> None:
    llm.refusal, llm.errored = RuntimeError("EngineCore encountered an issue"), True
    with pytest.raises(CapacityError, match="ask again in a moment"):
        asyncio.run(loras.hold("a", files))


def test_the_loop_goes_on_while_files_are_copied(llm: FakeLlm, files: Path, tmp_path: Path) -> None:
    """All streams of a replica are on the loop."""
    may_copy = threading.Event()

    class SlowDisk(LoraFiles):
        def add(self, content_hash: str, files: Path) -> Path:
            assert may_copy.wait(WAIT_S)
            return super().add(content_hash, files)

    async def use() -> None:
        loading = asyncio.create_task(Loras(llm, SlowDisk(tmp_path / "own"), request_of).hold("a", files))
        for _ in range(3):
            await asyncio.sleep(0)
        may_copy.set()
        await loading
        assert llm.loaded == {1: "plain"}

    asyncio.run(use())


def test_a_request_that_is_cancelled_twice_gives_it_back(loras: Loras, llm: FakeLlm, files: Path) -> None:
    async def use() -> None:
        begun = asyncio.Event()

        async def compute() -> None:
            async with loras.held("a"):
                begun.set()
                await asyncio.Event().wait()

        await loras.hold("a", files)
        running = asyncio.create_task(compute())
        await begun.wait()
        await loras.release("a")
        llm.may_remove.clear()
        for _ in range(2):
            running.cancel()
            for _ in range(3):
                await asyncio.sleep(0)
        llm.may_remove.set()
        await asyncio.gather(running, return_exceptions=True)
        await loras.hold("b", files)  # waits for whatever is under way
        assert list(llm.loaded.values()) == ["plain"]
        assert loras.content_hashes == {"b"}
        assert list(llm.loaded) == [2]

    asyncio.run(use())
