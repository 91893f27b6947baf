"""The whole path of an adapter over architectures: trained, taken from its checkpoint, and loaded into plain PEFT."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from transformers import PreTrainedModel

from sienn_ray.datasets.schema import RowKind
from sienn_ray.training import checkpoint_files
from sienn_ray.training.adapter.fused_lora import FusedLoraLinear
from tests.support.architectures import random_model
from tests.unit.training.training import TRAIN_ROWS, Trainee, config_of

NAMES = ["llama", "qwen2", "qwen3", "mistral", "gemma", "gemma2", "phi", "phi3", "gpt2"]


@dataclass(frozen=True)
class Trained:
    """A run's outcome.

    Args:
        name: The architecture.
        run: The run.
        model: The base model that was trained on, adapted in place.
        adapter_folder: What would be published.
    """

    name: str
    run: Trainee
    model: PreTrainedModel
    adapter_folder: Path


@pytest.fixture(scope="module", params=NAMES)
def trained(
    request: pytest.FixtureRequest, tiny_model_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Trained:
    folder = tmp_path_factory.mktemp(request.param)
    model = random_model(request.param)
    run = Trainee(tiny_model_folder, folder / "checkpoints", config_of(num_epochs=3), eval_rows=None)
    run.train(model)
    target = folder / "adapter"
    target.mkdir()
    checkpoint_files.copy_best_adapter(run.last, target)
    return Trained(request.param, run, model, target)


def matrix_modules(model: PreTrainedModel) -> set[str]:
    """Paths of all modules that multiply by a matrix, but embeddings and the output head: told by their weights."""
    tables = {id(model.get_input_embeddings()), id(model.get_output_embeddings())}
    return {
        path
        for path, module in model.named_modules()
        if isinstance(weight := getattr(module, "weight", None), torch.Tensor)
        and weight.ndim == 2
        and not isinstance(module, torch.nn.Embedding)
        and id(module) not in tables
    }


def logits(model: torch.nn.Module) -> list[torch.Tensor]:
    """Of each row by itself."""
    with torch.no_grad():
        return [model.eval()(input_ids=torch.tensor([ids]), use_cache=False).logits[0] for ids, _ in TRAIN_ROWS]


def test_the_loss_falls(trained: Trained) -> None:
    train_losses = [entry.train_loss for entry in trained.run.state.history if entry.train_loss is not None]
    assert len(train_losses) == 3
    assert train_losses[2] < train_losses[1] < train_losses[0]


def test_every_linear_module_but_the_head_has_an_adapter(trained: Trained) -> None:
    adapted = {path: module for path, module in trained.model.named_modules() if isinstance(module, LoraLayer)}
    assert adapted.keys() == matrix_modules(random_model(trained.name))
    assert all(isinstance(module, FusedLoraLinear) for module in adapted.values())
    saved = {name.split(".lora_")[0].removeprefix("base_model.model.") for name in trained.run.weights}
    assert saved == adapted.keys()
    assert all(float(value.abs().max()) > 0 for value in trained.run.weights.values())


def test_plain_peft_gives_the_logits_of_the_trained_model(trained: Trained) -> None:
    """And warns of nothing: warnings are errors here."""
    base = logits(random_model(trained.name))
    trained.model.set_attn_implementation("eager")  # packed rows aside
    expected = logits(trained.model)
    loaded = PeftModel.from_pretrained(random_model(trained.name), trained.adapter_folder)
    assert not any(isinstance(module, FusedLoraLinear) for module in loaded.modules())
    for found, wanted, before in zip(logits(loaded), expected, base, strict=True):
        scale = float(wanted.abs().max())
        torch.testing.assert_close(found, wanted, rtol=0, atol=1e-4 * scale)
        assert float((wanted - before).abs().max()) > 1e-3 * scale


def test_the_adapter_names_its_base_model_by_id(trained: Trained) -> None:
    saved = json.loads((trained.adapter_folder / checkpoint_files.ADAPTER_CONFIG).read_text())
    assert saved["base_model_name_or_path"] == trained.run.config.base_model
    assert saved["inference_mode"] is True


def test_preferences_are_learned_without_the_base_models_dropout(tmp_path: Path) -> None:
    """GPT-2's own is 0.1; policy and reference would each drop others, and the base model differ from itself."""
    from transformers import AutoModelForCausalLM, GPT2Config

    from sienn_ray.datasets.token_stream import TokenArrays
    from sienn_ray.training.preparation import prepare
    from sienn_ray.training.steps import StepPlan
    from tests.support.fakes_training import FakeWorker

    base = AutoModelForCausalLM.from_config(GPT2Config(vocab_size=300, n_embd=32, n_layer=2, n_head=4, n_positions=256))
    config = config_of()
    plan = StepPlan.of(config, 1, 4)
    learner = prepare(base, config, FakeWorker(tmp_path), plan, pad_token_id=0, row_kind=RowKind.PREFERENCE)
    learner.adapter.train()
    pairs = [([5, 6, 7, 8, 9], [-100, -100, 7, 8, 9]), ([5, 6, 10, 11], [-100, -100, 10, 11])]
    rows = [TokenArrays(*row) for row in pairs]
    loss, _ = learner.gradients.accumulate([], learner.collator.step(rows)).read(None)
    assert loss.mean == pytest.approx(math.log(2), abs=1e-6)
