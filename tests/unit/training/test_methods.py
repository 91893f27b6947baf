"""A loss that is added has to be named, made, described and published: each place that is forgotten fails here."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import pytest
from huggingface_hub import ModelCard

from sienn_ray.base_model import load_tokenizer
from sienn_ray.datasets.prompt import PromptFormat
from sienn_ray.datasets.row_order import NO_ROWS, RowGroup, RowOrder
from sienn_ray.datasets.schema import RowKind
from sienn_ray.errors import InvalidDatasetError
from sienn_ray.training import model_card, publication, record
from sienn_ray.training.config import MethodName, TrainingConfig
from sienn_ray.training.loss.objectives import make_objective
from sienn_ray.training.methods import Method, method_of, methods_for, words_of
from sienn_ray.training.spec import OrderedRows, Run, RunRows
from tests.support.fakes_training import FakeRows
from tests.unit.training.test_record import a_record
from tests.unit.training.training import Trainee, config_of, row

NOTHING: Any = None


def test_every_method_learns_from_some_rows() -> None:
    assert {method for kind in RowKind for method in methods_for(kind)} == set(Method)


def test_methods_are_asked_for_by_their_names() -> None:
    assert get_args(MethodName) == ("auto", *Method)


def test_rows_have_a_method_of_their_own() -> None:
    assert method_of(RowKind.CONVERSATION) is method_of(RowKind.TEXT) is Method.SFT
    assert method_of(RowKind.PREFERENCE) is Method.DPO
    assert method_of(RowKind.UNPAIRED_PREFERENCE) is Method.KTO
    assert method_of(RowKind.PREFERENCE, "simpo") is Method.SIMPO


def test_a_method_that_rows_are_not_for_is_refused_with_the_way_out() -> None:
    with pytest.raises(InvalidDatasetError) as error:
        method_of(RowKind.CONVERSATION, "orpo")
    assert str(error.value) == (
        "method=orpo learns from preferences, and the dataset has conversations; choose another dataset, or "
        "method=sft, or leave method out"
    )
    with pytest.raises(
        InvalidDatasetError, match="method=dpo learns from preferences, and the dataset has labelled answ"
    ):
        method_of(RowKind.UNPAIRED_PREFERENCE, "dpo")


@pytest.mark.parametrize("method", Method)
def test_an_objective_has_the_name_it_is_made_by(method: Method) -> None:
    assert make_objective(method, NOTHING, NOTHING, TrainingConfig(base_model="m")).name is method


@pytest.mark.parametrize("kind", RowKind)
def test_an_example_is_a_row(kind: RowKind) -> None:
    objective = make_objective(method_of(kind), NOTHING, NOTHING, TrainingConfig(base_model="m"))
    assert objective.rows_per_example == kind.num_sequences


def test_methods_are_told_apart_in_words() -> None:
    words = [words_of(method) for method in Method]
    assert len({each.name for each in words}) == len({each.loss for each in words}) == len(Method)


@pytest.mark.parametrize("method", Method)
def test_a_card_has_the_method_and_its_own_hyperparameters_only(method: Method) -> None:
    resolved = a_record().resolved.model_copy(update={"method": method})
    card = ModelCard(model_card.model_card(a_record(resolved=resolved)))
    assert method.value in (card.data.tags or [])
    assert words_of(method).name in card.text
    assert words_of(method).loss in card.text
    own = {name for name in TrainingConfig.model_fields if any(each.owns(name) for each in Method)}
    assert {name for name in own if f"`{name}`" in card.text} == {name for name in own if method.owns(name)}
    assert "dpo_beta" in own


@pytest.mark.parametrize("kind", RowKind)
def test_what_is_trained_can_be_published(
    kind: RowKind, tiny_model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = FakeRows([row(number) for number in range(2 * kind.num_sequences)], kind.num_sequences)
    trainee = Trainee(
        tiny_model_folder, tmp_path / "run", config_of(num_epochs=1), rows=rows, eval_rows=None, row_kind=kind
    )
    result = trainee.train()
    tokenizer = load_tokenizer(tiny_model_folder)
    facts = publication.base_model_facts(tiny_model_folder, tokenizer, PromptFormat.for_rows(kind, tokenizer))
    # The program that publishes may be on a node without base model and hub.
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "empty"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    result = replace(result, base=facts)
    run = Run("job", trainee.config, kind, "rows", "adapters/job")
    order = RowOrder.of([RowGroup(0, 2, 1)], None, NO_ROWS)
    (tmp_path / "adapter").mkdir()
    stored = RunRows(OrderedRows(NOTHING, order), None)
    start = record.StartFacts(url="s3://bucket/adapter")
    publication.assemble(run, trainee.last, tmp_path / "adapter", result, stored, start)
    assert record.read(tmp_path / "adapter").start == start
    assert record.read(tmp_path / "adapter").resolved.method is method_of(kind)
    assert record.read(tmp_path / "adapter").base_model_sha256 == record.weights_sha256(tiny_model_folder)
    assert load_tokenizer(tmp_path / "adapter").get_vocab() == tokenizer.get_vocab()
    assert words_of(method_of(kind)).name in (tmp_path / "adapter" / model_card.FILE_NAME).read_text()
