from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from sienn_ray.training.hardware import choose_dtype, free_memory_bytes, use_all_cpus

CPU = torch.device("cpu")


def give_cpu(monkeypatch: pytest.MonkeyPatch, capabilities: dict[str, Any]) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)


class TestDtype:
    @pytest.mark.parametrize("has_bfloat16", [True, False])
    def test_what_is_asked_for_is_taken_on_any_hardware(
        self, monkeypatch: pytest.MonkeyPatch, *, has_bfloat16: bool
    ) -> None:
        give_cpu(monkeypatch, {"amx_bf16": has_bfloat16})
        assert choose_dtype("float32", CPU) is torch.float32
        assert choose_dtype("bfloat16", CPU) is torch.bfloat16

    @pytest.mark.parametrize(
        ("capabilities", "dtype"),
        [
            ({"avx512_bf16": True}, torch.bfloat16),
            ({"avx512_bf16": False, "amx_bf16": True}, torch.bfloat16),
            ({"amx_tile": True}, torch.bfloat16),
            ({"bf16": True, "architecture": "aarch64"}, torch.bfloat16),
            ({"avx512_bf16": False, "amx_bf16": False}, torch.float32),
            ({"avx2": True, "avx512_f": True, "architecture": "x86_64"}, torch.float32),
            ({}, torch.float32),
        ],
    )
    def test_a_cpu_gets_bfloat16_where_it_multiplies_that_fast(
        self, monkeypatch: pytest.MonkeyPatch, capabilities: dict[str, Any], dtype: torch.dtype
    ) -> None:
        give_cpu(monkeypatch, capabilities)
        assert choose_dtype("auto", CPU) is dtype

    def test_so_it_is_asked_what_it_can_do(self) -> None:
        assert choose_dtype("auto", CPU) in {torch.bfloat16, torch.float32}
        assert "architecture" in torch.cpu.get_capabilities()

    def test_other_devices_get_float32(self) -> None:
        assert choose_dtype("auto", torch.device("mps")) is torch.float32


class TestCpus:
    @pytest.fixture(autouse=True)
    def _threads_as_before(self) -> Iterator[None]:
        before = torch.get_num_threads()
        yield
        torch.set_num_threads(before)

    @pytest.mark.parametrize("num_cpus", [0, 1, 2, 10_000])
    def test_threads_are_as_many_as_cpus_but_one_at_least(self, num_cpus: int) -> None:
        num_usable = len(os.sched_getaffinity(0))
        expected = max(1, min(num_cpus, num_usable))
        assert use_all_cpus(num_cpus) == torch.get_num_threads() == expected


def test_memory_that_the_allocator_keeps_unused_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (1000, 8000))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda _: 700)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda _: 500)
    assert free_memory_bytes(torch.device("cuda")) == 1200
