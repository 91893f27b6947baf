"""Decoding steps that are replayed give what they give as they are; a replay on a CPU is the recorded operators."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from unittest.mock import Mock

import pytest
import torch

from sienn_ray.inference.model.decode_graphs import Capture, CudaCapture, DecodeGraphs, GraphKey
from sienn_ray.inference.model.linear_choice import LinearChoices
from sienn_ray.inference.model.lora_weights import LayerLora, LoraWeights
from sienn_ray.inference.model.runner import ModelRunner, StepRow
from sienn_ray.inference.transfers import StepNumbers
from tests.support.architectures import ARCHITECTURES, random_model
from tests.support.captures import RecordedCapture

CPU = torch.device("cpu")
PAGED = sorted(ARCHITECTURES.keys() - {"bloom"})


def runner_of(capture: Capture | None) -> ModelRunner:
    return ModelRunner(random_model("llama"), 1 << 20, 4, LinearChoices(), for_gpu=True, capture=capture)


def adapter_of(
    runner: ModelRunner, r: int, scale: float = 0.1, *, has_gains: bool = False, part: str = ""
) -> LoraWeights:
    """An adapter of the layers whose names have this part."""
    generator = torch.Generator().manual_seed(r)

    def layer(out_size: int, in_size: int) -> LayerLora:
        a = torch.randn((r, in_size), generator=generator) * scale
        b = torch.randn((out_size, r), generator=generator) * scale
        return LayerLora(a, b, torch.rand(out_size, generator=generator) + 0.5 if has_gains else None)

    layers = {name: layer(*each.shape) for name, each in runner.lora.layers.items() if part in name}
    return runner.lora.readied(LoraWeights(layers, r))


def adapters_of(runner: ModelRunner, scale: float = 0.1) -> dict[str, LoraWeights]:
    """Adapters of unlike ranks, of which one has gains, one changes few layers, and one needs larger places."""
    return {
        "a": adapter_of(runner, 4, scale),
        "b": adapter_of(runner, 8, scale),
        "gains": adapter_of(runner, 5, scale, has_gains=True),
        "few": adapter_of(runner, 3, scale, part="q_proj"),
        "large": adapter_of(runner, 12, scale),
    }


def decoded(runner: ModelRunner, names: Sequence[str | None], adapters: Mapping[str, LoraWeights]) -> torch.Tensor:
    """Logits of three steps of requests of unlike lengths, behind their prompts."""
    prompts = [[(7 * place + number) % 300 for place in range(3 + 5 * number)] for number in range(len(names))]
    blocks = [[number + len(names) * index for index in range(12)] for number in range(len(names))]
    steps = []
    for more in range(4):
        rows = [
            StepRow([*prompt, *[5] * more], len(prompt) + more - 1 if more else 0, own, name, more > 0)
            for prompt, own, name in zip(prompts, blocks, names, strict=True)
        ]
        steps.append(runner.step(rows, adapters).clone())
    return torch.cat(steps[1:])


@pytest.mark.parametrize(
    "batches",
    [
        [[None], [None] * 3],
        [["a"], ["a", None, "b"], ["b", "b", "b", "a", None]],
        [["a", "b"], ["gains", "a", None], ["a", "b"]],  # a place of another, and gains that come later
    ],
)
def test_replayed_steps_give_what_others_give(batches: list[list[str | None]]) -> None:
    captures = RecordedCapture()
    graphed, eager = runner_of(captures), runner_of(None)
    adapters = adapters_of(graphed)
    for names in batches:
        expected = decoded(eager, names, adapters)
        for _ in range(2):
            torch.testing.assert_close(decoded(graphed, names, adapters), expected, atol=2e-5, rtol=1e-4)
    assert captures.num_replays > captures.num_captures


@pytest.mark.parametrize("long", [(4,), (0, 2, 9)])
def test_long_requests_beside_short_ones_are_a_class_of_their_own(long: tuple[int, ...]) -> None:
    captures = RecordedCapture()
    graphed, eager = runner_of(captures), runner_of(None)
    adapters, num_rows, num_blocks = adapters_of(graphed), 11, 100
    # Padded to the longest they would read 16 times 128 blocks.
    lengths = [4 * num_blocks - 8 if number in long else 3 + number for number in range(num_rows)]
    prompts = [[(7 * place + number) % 300 for place in range(length)] for number, length in enumerate(lengths)]
    tables = [[num_blocks * number + index for index in range(num_blocks)] for number in range(num_rows)]
    for more in range(4):
        rows = [
            StepRow([*tokens, *[5] * more], len(tokens) + more - 1 if more else 0, own, name, more > 0)
            for tokens, own, name in zip(prompts, tables, [None, "a", "gains"] * 4, strict=False)
        ]
        found, expected = (runner.step(rows, adapters) for runner in (graphed, eager))
        torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-4)
    assert (captures.num_captures, captures.num_replays) == (1, 2)


@pytest.mark.parametrize(
    "batches",
    [
        [["a"], ["a", "b"], ["b"]],  # more places
        [["a"], ["large"], ["a"]],  # larger ones
        [["a", "b"], ["a", "gains"]],  # the first gains
        [["few"], ["a"]],  # the first adapter of most layers
        [["gains"], ["gains", "b"], ["b"], ["gains"]],  # gains of places that are gone
    ],
)
def test_a_graph_is_not_replayed_on_places_that_are_others_now(batches: list[list[str | None]]) -> None:
    captures = RecordedCapture()
    graphed, eager = runner_of(captures), runner_of(None)
    adapters = adapters_of(graphed)
    for names in batches:
        for _ in range(2):
            found, expected = decoded(graphed, names, adapters), decoded(eager, names, adapters)
            torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-4)
    assert captures.num_replays > captures.num_captures


def test_graphs_stay_when_an_adapter_takes_the_place_of_another() -> None:
    captures = RecordedCapture()
    graphed, eager = runner_of(captures), runner_of(None)
    adapters = adapters_of(graphed)
    decoded(graphed, ["a", "gains"], adapters)
    num_captures = captures.num_captures
    for names in (["b", "gains"], ["b", "a"], ["few", "b"]):
        torch.testing.assert_close(
            decoded(graphed, names, adapters), decoded(eager, names, adapters), atol=2e-5, rtol=1e-4
        )
    for runner in (graphed, eager):
        runner.lora.forget("b")  # evicted, and trained again under its name
    again = adapters | {"b": adapter_of(graphed, 7)}
    found, expected = decoded(graphed, ["b", "a"], again), decoded(eager, ["b", "a"], again)
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-4)
    assert float((expected - decoded(runner_of(None), ["b", "a"], adapters)).abs().max()) > 1e-2
    assert captures.num_captures == num_captures


@pytest.mark.parametrize("name", PAGED)
def test_every_architecture_is_captured(name: str) -> None:
    captures = RecordedCapture()
    graphed = ModelRunner(random_model(name), 1 << 20, 4, LinearChoices(), for_gpu=True, capture=captures)
    eager = ModelRunner(random_model(name), 1 << 20, 4, LinearChoices(), for_gpu=True)
    adapters = {"a": adapter_of(graphed, 4)}
    for _ in range(2):
        found, expected = decoded(graphed, ["a", None], adapters), decoded(eager, ["a", None], adapters)
        torch.testing.assert_close(found, expected, atol=5e-5, rtol=1e-4)
    assert captures.num_replays >= captures.num_captures > 0


def test_steps_of_many_sizes_are_few_graphs() -> None:
    captures = RecordedCapture()
    runner = runner_of(captures)
    for _ in range(2):
        for num in range(1, 9):
            decoded(runner, [None] * num, {})
    num_rows, num_blocks = 4, 5  # 1, 2, 4 and 8, and 16 blocks
    assert captures.num_captures <= num_rows * num_blocks


def test_what_fills_up_a_step_gets_nothing_from_a_diverged_adapter() -> None:
    runner = runner_of(RecordedCapture())
    expected = decoded(runner_of(None), [None, None, None], {})[::3]
    diverged = adapters_of(runner, scale=1e30)
    for _ in range(2):
        torch.testing.assert_close(decoded(runner, [None, "a", "b"], diverged)[::3], expected, atol=2e-5, rtol=1e-4)


def test_a_step_that_cannot_be_captured_is_computed_as_it_is(caplog: pytest.LogCaptureFixture) -> None:
    num_tries = 0

    def refuse(work: Callable[[], object]) -> Callable[[], None]:
        nonlocal num_tries
        num_tries += 1
        raise RuntimeError("operation not permitted when stream is capturing")

    runner = runner_of(refuse)
    with caplog.at_level(logging.WARNING):
        found = decoded(runner, [None, None], {})
    torch.testing.assert_close(found, decoded(runner_of(None), [None, None], {}), atol=2e-5, rtol=1e-4)
    assert num_tries == 1
    assert "aren't captured as CUDA graphs: RuntimeError: operation not permitted" in caplog.text


def test_a_size_that_has_no_memory_is_given_up_alone(caplog: pytest.LogCaptureFixture) -> None:
    captures = RecordedCapture()
    refused: list[object] = []

    def short(work: Callable[[], object]) -> Callable[[], None]:
        if captures.num_captures == 1 and not refused:
            refused.append(work)
            raise torch.OutOfMemoryError("CUDA out of memory")
        return captures(work)

    runner, eager = runner_of(short), runner_of(None)
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            for num in (1, 2, 4):
                expected = decoded(eager, [None] * num, {})
                torch.testing.assert_close(decoded(runner, [None] * num, {}), expected, atol=2e-5, rtol=1e-4)
    graphs = runner.graphs
    assert graphs is not None
    assert not graphs.is_off
    assert (graphs.num_captures, graphs.num_replays) == (captures.num_captures, captures.num_replays)
    assert captures.num_captures == len(graphs) > 2
    assert len(caplog.records) == len(refused) == 1
    assert "CUDA out of memory" in caplog.text


def test_the_thread_has_its_stream_again_after_a_capture_that_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    stream, own = Mock(name="capture"), Mock(name="own")
    current = [own]

    @contextmanager
    def failing(*_: object, **__: object) -> Iterator[None]:
        """As PyTorch's: where ending a capture fails, the stream stays."""
        torch.cuda.set_stream(stream)
        yield
        raise RuntimeError("operation failed due to a previous error during capture")

    monkeypatch.setattr(torch.cuda, "current_stream", lambda: current[0])
    monkeypatch.setattr(torch.cuda, "set_stream", lambda other: current.__setitem__(0, other))
    monkeypatch.setattr(torch.cuda, "Stream", lambda: stream)
    monkeypatch.setattr(torch.cuda, "CUDAGraph", Mock())
    monkeypatch.setattr(torch.cuda, "graph", failing)
    streams: list[object] = []
    with pytest.raises(RuntimeError, match="a previous error"):
        CudaCapture()(lambda: streams.append(current[0]))
    assert streams == [stream, stream]
    assert current == [own]
    own.wait_stream.assert_called_with(stream)  # what was computed there reads what others may overwrite


class TestKept:
    def compute(self, graphs: DecodeGraphs, num_rows: int, version: int = 0) -> list[float]:
        numbers = StepNumbers(CPU)
        at = numbers.add(range(num_rows))
        key = GraphKey(num_rows, ((num_rows, 1),), (1, 1) if version else None, version)
        return graphs.compute(key, numbers, lambda: 2.0 * numbers[at].unsqueeze(1))[:, 0].tolist()

    def test_the_least_recently_used_are_given_up(self) -> None:
        captures = RecordedCapture()
        graphs = DecodeGraphs(captures, CPU, max_graphs=2)
        for num_rows in (1, 2, 1, 3, 1, 2):
            assert self.compute(graphs, num_rows) == [2.0 * number for number in range(num_rows)]
        assert (len(graphs), captures.num_captures) == (2, 4)

    def test_those_of_places_that_are_gone_are_given_up(self) -> None:
        graphs = DecodeGraphs(RecordedCapture(), CPU)
        self.compute(graphs, 1)
        self.compute(graphs, 1, version=1)
        self.compute(graphs, 2, version=1)
        assert len(graphs) == 3
        self.compute(graphs, 1, version=2)
        assert len(graphs) == 2

    def test_more_rows_of_logits_than_before(self) -> None:
        graphs = DecodeGraphs(RecordedCapture(), CPU)
        for num_rows in (1, 100, 1):
            assert self.compute(graphs, num_rows) == [2.0 * number for number in range(num_rows)]
