"""Adapters in one batch give what plain PEFT gives for each alone."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file

from sienn_ray.errors import ArtifactError, EngineError
from sienn_ray.inference.model.linear_choice import LinearChoices
from sienn_ray.inference.model.lora_weights import LoraWeights, read_lora
from sienn_ray.inference.model.runner import ModelRunner, StepRow
from sienn_ray.inference.requests.adapter_files import CONFIG_FILE, WEIGHTS_FILE
from tests.support.architectures import random_model

#: An architecture and bytes of the cache to a runner, in the ways of a CPU and in those of a GPU.
Run = Callable[[str, int], ModelRunner]
BASE = "sienn-tests/base"
# Of logits whose largest is about one.
TOLERANCE = 2e-5
CONFIGS: dict[str, dict[str, Any]] = {
    "plain": {"r": 8, "lora_alpha": 16},
    "odd r": {"r": 5, "lora_alpha": 40},
    "large r": {"r": 24, "lora_alpha": 8},
    "rslora": {"r": 16, "lora_alpha": 16, "use_rslora": True},
    "dora": {"r": 8, "lora_alpha": 16, "use_dora": True},
    "two modules": {"r": 8, "lora_alpha": 16, "target_modules": ["q_proj", "down_proj"]},
    "one module": {"r": 4, "lora_alpha": 16, "target_modules": ["v_proj"]},
    "patterns": {"r": 8, "lora_alpha": 16, "rank_pattern": {"q_proj": 3}, "alpha_pattern": {"q_proj": 30}},
}
GPT2_CONFIGS: dict[str, dict[str, Any]] = {
    "plain": {"r": 8, "lora_alpha": 16, "fan_in_fan_out": True},
    "dora": {"r": 8, "lora_alpha": 16, "fan_in_fan_out": True, "use_dora": True},
}


@pytest.fixture(params=[False, True], ids=["cpu", "gpu"])
def run(request: pytest.FixtureRequest) -> Run:
    """Makes runners; the ways of a GPU compute on the CPU here."""
    return lambda name, cache_bytes: ModelRunner(
        random_model(name), cache_bytes, 4, LinearChoices(), for_gpu=request.param
    )


def save_adapter(architecture: str, folder: Path, seed: int, **options: Any) -> list[torch.Tensor]:
    """Save a random adapter; gives PEFT's logits after the last token of each of two prompts."""
    model = adapted(architecture, seed, **options)
    model.save_pretrained(folder, save_embedding_layers=False)  # else it would ask the hub
    with torch.inference_mode():
        return [model(input_ids=torch.tensor([tokens])).logits[0, -1].float() for tokens in prompts(seed)]


def adapted(architecture: str, seed: int, **options: Any) -> Any:
    """The random model with a random adapter."""
    config = LoraConfig(**{"target_modules": "all-linear", "task_type": "CAUSAL_LM", **options})
    model = get_peft_model(random_model(architecture), config).eval()
    torch.manual_seed(seed)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data = torch.randn_like(parameter) * 0.3
        elif "magnitude" in name:
            parameter.data *= 1 + 0.3 * torch.rand_like(parameter)
    model.peft_config["default"].base_model_name_or_path = BASE
    return model


def prompts(seed: int) -> list[list[int]]:
    return [[(7 * index * (seed + 2) + seed) % 300 for index in range(length)] for length in (4 + seed, 9)]


def read(runner: ModelRunner, folder: Path) -> LoraWeights:
    return runner.lora.readied(read_lora(folder, BASE, runner.lora.layers, torch.float32))


@pytest.mark.parametrize(("architecture", "configs"), [("llama", CONFIGS), ("qwen2", CONFIGS), ("gpt2", GPT2_CONFIGS)])
def test_mixed_batch_equals_each_adapter_alone(
    architecture: str, configs: dict[str, dict[str, Any]], tmp_path: Path, run: Run
) -> None:
    expected = {
        name: save_adapter(architecture, tmp_path / name, seed, **options)
        for seed, (name, options) in enumerate(configs.items())
    }
    base = random_model(architecture).eval()
    with torch.inference_mode():
        plain = [base(input_ids=torch.tensor([tokens])).logits[0, -1].float() for tokens in prompts(0)]
    runner = run(architecture, 1 << 22)
    adapters = {name: read(runner, tmp_path / name) for name in configs}
    rows: list[Any] = []
    wanted: list[Any] = []
    for number in range(2):
        for seed, name in enumerate([*configs, None]):
            tokens = prompts(seed if name else 0)[number]
            blocks = list(range(5 * len(rows), 5 * len(rows) + 5))
            rows.append(StepRow(tokens, 0, blocks, name, True))
            wanted.append(expected[name][number] if name else plain[number])
    for found, want in zip(runner.step(rows, adapters), wanted, strict=True):
        torch.testing.assert_close(found, want, atol=TOLERANCE, rtol=1e-4)
    # Others leave, one comes back, and those in places of others' are right as well.
    few = [row for row in rows if row.adapter in {"dora", None}]
    for found, row in zip(runner.step(few, adapters), few, strict=True):
        torch.testing.assert_close(found, wanted[rows.index(row)], atol=TOLERANCE, rtol=1e-4)
    for row, want in zip(rows, wanted, strict=True):
        torch.testing.assert_close(runner.step([row], adapters)[0], want, atol=TOLERANCE, rtol=1e-4)


@pytest.mark.parametrize("lengths", [(1, 1, 70), (70, 1, 1), (1, 70, 70), (2, 5, 3), (3, 3, 3)])
def test_adapters_with_many_and_with_few_tokens(lengths: tuple[int, ...], tmp_path: Path, run: Run) -> None:
    kinds = [CONFIGS["plain"], CONFIGS["dora"], CONFIGS["odd r"]]
    models = [adapted("llama", seed, **options) for seed, options in enumerate(kinds)]
    runner = run("llama", 1 << 22)
    adapters, rows, wanted = {}, [], []
    for number, (model, length) in enumerate(zip(models, lengths, strict=True)):
        folder = tmp_path / str(number)
        model.save_pretrained(folder, save_embedding_layers=False)
        adapters[str(number)] = read(runner, folder)
        tokens = [(11 * index + number) % 300 for index in range(length)]
        rows.append(StepRow(tokens, 0, list(range(20 * number, 20 * number + 20)), str(number), True))
        with torch.inference_mode():
            wanted.append(model(input_ids=torch.tensor([tokens])).logits[0, -1].float())
    for found, want in zip(runner.step(rows, adapters), wanted, strict=True):
        torch.testing.assert_close(found, want, atol=TOLERANCE, rtol=1e-4)


@pytest.mark.parametrize("lengths", [(1, 2, 1), (1, 1, 70)])
def test_numbers_that_are_none_stay_with_their_adapter(lengths: tuple[int, ...], tmp_path: Path, run: Run) -> None:
    for number in range(3):
        adapted("llama", number, r=8).save_pretrained(tmp_path / str(number), save_embedding_layers=False)
    runner = run("llama", 1 << 22)
    adapters = {str(number): read(runner, tmp_path / str(number)) for number in range(3)}
    rows = [
        StepRow([5] * length, 0, list(range(20 * number, 20 * number + 20)), str(number), True)
        for number, length in enumerate(lengths)
    ]
    whole = runner.step(rows, adapters)
    for layer in adapters["1"].layers.values():
        layer.b.fill_(float("inf"))
    runner.lora.forget("1")
    broken = runner.step(rows, adapters)
    assert not broken[1].isfinite().all()
    assert torch.equal(broken[[0, 2]], whole[[0, 2]])


def test_a_name_that_was_forgotten_may_come_back_with_other_weights(tmp_path: Path, run: Run) -> None:
    first = save_adapter("llama", tmp_path / "first", 0, r=8)
    second = save_adapter("llama", tmp_path / "second", 1, r=8)
    runner = run("llama", 1 << 20)
    row = StepRow(prompts(0)[0], 0, [0, 1], "name", True)
    found = runner.step([row], {"name": read(runner, tmp_path / "first")})[0]
    torch.testing.assert_close(found, first[0], atol=TOLERANCE, rtol=1e-4)
    runner.lora.forget("name")
    row = StepRow(prompts(1)[0], 0, [0, 1], "name", True)
    found = runner.step([row], {"name": read(runner, tmp_path / "second")})[0]
    torch.testing.assert_close(found, second[0], atol=TOLERANCE, rtol=1e-4)


@pytest.fixture(scope="module")
def runner() -> ModelRunner:
    """Without adapters."""
    return ModelRunner(random_model("llama"), 1 << 20, 4, LinearChoices())


class TestRefused:
    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        save_adapter("llama", tmp_path, 0, r=8)
        return tmp_path

    def refuse(self, runner: ModelRunner, folder: Path, error: type[Exception], match: str) -> None:
        with pytest.raises(error, match=match):
            read(runner, folder)

    @pytest.mark.parametrize(
        ("field", "value", "match"),
        [
            ("base_model_name_or_path", "other/model", "trained on 'other/model'"),
            ("peft_type", "IA3", "type IA3"),
            ("modules_to_save", ["lm_head"], "modules_to_save"),
            ("bias", "all", "bias=all"),
            ("alpha_pattern", {"q_(proj|x)": 3}, "isn't a layer's name"),
        ],
    )
    def test_config_that_cannot_be_applied(
        self, runner: ModelRunner, folder: Path, field: str, value: Any, match: str
    ) -> None:
        path = folder / CONFIG_FILE
        path.write_text(json.dumps({**json.loads(path.read_text()), field: value}))
        self.refuse(runner, folder, EngineError, match)

    @pytest.mark.parametrize("content", [b"", b"[]", b"{}", b"nonsense"])
    def test_config_that_cannot_be_read(self, runner: ModelRunner, folder: Path, content: bytes) -> None:
        (folder / CONFIG_FILE).write_bytes(content)
        self.refuse(runner, folder, ArtifactError, CONFIG_FILE)

    def test_no_weights(self, runner: ModelRunner, folder: Path) -> None:
        (folder / WEIGHTS_FILE).unlink()
        self.refuse(runner, folder, ArtifactError, WEIGHTS_FILE)

    @pytest.mark.parametrize(
        ("change", "match"),
        [
            (lambda tensors, key: tensors.update({key: tensors[key][:, 1:].contiguous()}), "the layer takes"),
            (lambda tensors, key: tensors.pop(key), "only half"),
            (lambda tensors, key: tensors.update({key: tensors[key] * float("nan")}), "finite"),
            (lambda tensors, key: tensors.update({key.replace("q_proj", "z_proj"): tensors[key].clone()}), "z_proj"),
            (lambda tensors, key: tensors.update({"base_model.model.lm_head.weight": tensors[key].clone()}), "lm_head"),
            (lambda tensors, key: tensors.clear(), "no weights"),
        ],
    )
    def test_weights_that_do_not_fit(self, runner: ModelRunner, folder: Path, change: Any, match: str) -> None:
        tensors = load_file(folder / WEIGHTS_FILE)
        change(tensors, next(key for key in tensors if "q_proj.lora_A" in key))
        save_file(tensors, folder / WEIGHTS_FILE)
        self.refuse(runner, folder, EngineError, match)
