from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import ModelCard
from markdown_it import MarkdownIt
from markdown_it.token import Token
from peft import LoraConfig, get_peft_model
from transformers import AutoTokenizer

from sienn_ray.training.config import TrainingConfig
from sienn_ray.training.methods import Method
from sienn_ray.training.model_card import model_card
from sienn_ray.training.record import DatasetFacts, RunRecord, StartFacts
from tests.unit.training.test_record import BLOB, COMMIT, a_record

HOSTILE = [
    "a`b``c.csv",
    "`",
    "a|b\\|c.csv",
    "\\`.csv",
    "<script>alert(1)</script>.csv",
    "![x](https://example.com/x.png).csv",
    "a\n---\n# Heading\n```\nlicense: mit.csv",
    "---",
    "x: [y]\n- z: *a",
    "!!python/object/apply:os.system [id]",
    "</code></td></table>.csv",
    "\u202evsc.exe\u2028\x85\x00.csv",
    "   ",
    "{{ 7 * 7 }} {% raw %} $(id) &lt;",
    "名前 🙂.csv",
]


def file_of(name: str, **changes: Any) -> DatasetFacts:
    return a_record().datasets[0].model_copy(update={"filename": name, **changes})


def tokens(card: str) -> list[Token]:
    """Every token of the card's text, as the hub's Markdown has tables too."""
    blocks = MarkdownIt("commonmark", {"html": True}).enable("table").parse(ModelCard(card).text)
    return [token for block in blocks for token in (block, *(block.children or []))]


def shape(card: str) -> list[str]:
    """What the text is made of, without the words."""
    return [token.type for token in tokens(card)]


def code_of(card: str) -> str:
    (block,) = [token for token in tokens(card) if token.type == "fence"]
    assert block.info == "python"
    return block.content


def test_the_hub_reads_the_metadata() -> None:
    data = ModelCard(model_card(a_record(), license="apache-2.0")).data
    assert data.base_model == "owner/base"
    assert data.library_name == "peft"
    assert data.pipeline_tag == "text-generation"
    assert data.license == "apache-2.0"
    assert data.tags == ["base_model:adapter:owner/base", "lora", "sft", "transformers"]
    assert data.to_dict()["base_model_relation"] == "adapter"


def test_the_evaluation_loss_is_a_result_of_the_model_index() -> None:
    data = ModelCard(model_card(a_record(name="Ferry"))).data
    assert data.model_name == "Ferry"
    (result,) = data.eval_results or []
    assert (result.task_type, result.dataset_name, result.dataset_split) == ("text-generation", "r.csv", "validation")
    assert (result.metric_type, result.metric_value) == ("loss", 1.5)
    # The hub refuses any other kind of id.
    assert re.fullmatch(r"(?:[\w-]+/)?[\w.-]+", result.dataset_type)


@pytest.mark.parametrize("loss", [None, float("nan"), float("inf")])
def test_without_an_evaluation_there_is_no_model_index(loss: float | None) -> None:
    results = a_record().results.model_copy(update={"eval_loss": loss})
    data = ModelCard(model_card(a_record(results=results))).data.to_dict()
    assert not {"model-index", "eval_results", "model_name"} & data.keys()


@pytest.mark.parametrize(
    ("license", "expected"), [("MIT", "mit"), ("other", "other"), (None, None), ("", None), ("My Terms\nx: y", None)]
)
def test_a_license_that_the_hub_would_refuse_is_left_out(license: str | None, expected: str | None) -> None:
    assert ModelCard(model_card(a_record(), license=license)).data.license == expected


def test_preference_training_is_told_from_supervised() -> None:
    resolved = a_record().resolved.model_copy(update={"method": Method.DPO})
    card = ModelCard(model_card(a_record(resolved=resolved)))
    assert "dpo" in (card.data.tags or [])
    assert "sft" not in (card.data.tags or [])
    assert "direct preference optimization" in card.text
    assert "`dpo_beta`" in card.text
    assert "`dpo_beta`" not in model_card(a_record())


def test_the_card_says_what_was_done() -> None:
    evaluation = file_of("held-out.jsonl", role="evaluation", num_rows=8)
    card = model_card(a_record(datasets=(*a_record().datasets, evaluation)))
    assert f"- `r.csv` (training): 72 rows, format `alpaca`, SHA-256 `{BLOB}`" in card
    assert "- `held-out.jsonl` (evaluation): 8 rows" in card
    assert "| `lora.target_modules` | `q_proj, v_proj` |" in card
    assert "| `learning_rate` | `0.0002` |" in card
    assert "| `num_workers` | `2` |" in card
    assert "| 0 |  |  | 3.0000 |" in card
    assert "| 1 (best) | 16 | 1.2500 | 1.5000 |" in card
    assert f"at commit `{COMMIT}`" in card
    assert "[`training_run.json`](training_run.json)" in card
    assert f"| `torch` | `{a_record().versions['torch']}` |" in card


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"started_from": "job-1", "start": StartFacts(sha256=BLOB)}, "the adapter of job `job-1`"),
        ({"start": StartFacts(url="s3://bucket/adapter", sha256=BLOB)}, "the adapter at `s3://bucket/adapter`"),
    ],
)
def test_the_adapter_that_a_run_started_from_is_named(changes: dict[str, Any], name: str) -> None:
    card = model_card(a_record(**changes))
    assert f"It goes on from {name}, which is part of it." in card
    assert "epoch 0 is the adapter that it started from" in card
    assert f"4. Get {name}, to start from. The SHA-256 of its `adapter_model.safetensors` is `{BLOB}`." in card
    assert "5. Start a fine-tune with" in card
    assert "epoch 0 is the base model" in model_card(a_record())


def test_a_base_model_of_no_known_commit_is_said_to_be_that() -> None:
    card = model_card(a_record(base_model_revision=None))
    assert "of no known commit" in card
    assert "revision=" not in card


@pytest.mark.parametrize("name", HOSTILE)
def test_a_name_is_never_markup(name: str) -> None:
    plain = model_card(a_record(name="plain", datasets=(file_of("plain.csv"),)))
    card = model_card(a_record(name=name, datasets=(file_of(name),)))
    assert shape(card) == shape(plain)
    shown = "".join(character for character in name if character.isprintable()).strip() or "unnamed"
    assert [token.content for token in tokens(card) if token.type == "code_inline"].count(shown) >= 2


@pytest.mark.parametrize("name", HOSTILE)
def test_a_name_adds_nothing_to_the_metadata(name: str) -> None:
    plain = ModelCard(model_card(a_record(name="plain"), license="mit"))
    card = model_card(a_record(name=name, datasets=(file_of(name),)), license="mit")
    data = ModelCard(card).data
    assert data.to_dict().keys() == plain.data.to_dict().keys()
    assert (data.license, data.base_model, data.tags) == ("mit", "owner/base", plain.data.tags)
    (result,) = data.eval_results or []
    assert result.dataset_name == data.model_name
    assert result.dataset_name
    assert yaml.safe_load(card.split("\n---\n")[0])["license"] == "mit"


@pytest.mark.parametrize("name", ["YES", "1e3", "null", "2026-01-01", "~"])
def test_a_name_that_yaml_takes_for_something_else_stays_text(name: str) -> None:
    assert ModelCard(model_card(a_record(name=name))).data.model_name == name


def test_a_job_without_a_name_goes_by_its_id() -> None:
    for name in (None, ""):
        assert f"# `{a_record().job_id}`" in model_card(a_record(name=name))


def test_long_names_are_cut() -> None:
    assert "x" * 256 not in model_card(a_record(name="x" * 5000))


@pytest.mark.parametrize("content", [*HOSTILE, "'''\n```\n# end", '"""', "a\\nb"])
@pytest.mark.parametrize("data_format", ["chat", "text"])
def test_an_example_stays_in_its_code(content: str, data_format: str) -> None:
    run = a_record(datasets=(file_of("r.csv", format=data_format),))
    plain, card = (model_card(run, chat_example=[{"role": "user", "content": text}]) for text in ("Hello", content))
    assert shape(card) == shape(plain)
    compile(code_of(card), "README.md", "exec")


@pytest.mark.parametrize(("data_format", "call"), [("chat", "apply_chat_template"), ("text", "tokenizer('Hello")])
def test_the_code_of_the_card_works(
    tiny_model_folder: Path,
    model: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Any,
    data_format: str,
    call: str,
) -> None:
    get_peft_model(model, LoraConfig(target_modules="all-linear")).save_pretrained(
        tmp_path, save_embedding_layers=False
    )
    AutoTokenizer.from_pretrained(tiny_model_folder).save_pretrained(tmp_path, save_jinja_files=False)
    code = code_of(model_card(here(tiny_model_folder, data_format)))
    assert call in code
    monkeypatch.chdir(tmp_path)
    exec(compile(code.replace("200", "4"), "README.md", "exec"), {})
    assert capsys.readouterr().out


def here(base_model: Path, data_format: str) -> RunRecord:
    """The record of a run with a base model that is loaded by its path, which needs no hub."""
    return a_record(
        config=TrainingConfig(base_model=str(base_model)),
        base_model_revision=None,
        datasets=(file_of("r.csv", format=data_format),),
    )


@pytest.mark.parametrize(
    ("policy", "sentence"),
    [
        (
            "cut",
            "22 rows had more than 512 tokens (`max_length`) and were cut: 900 tokens were lost, among them the "
            "end-of-turn token of each row.",
        ),
        ("drop", "22 rows had more than 512 tokens (`max_length`) and were left out."),
    ],
)
def test_rows_that_were_too_long_are_told(policy: str, sentence: str) -> None:
    record = a_record()
    results = record.results.model_copy(update={"num_long_rows": 22, "num_cut_tokens": 900, "num_long_eval_rows": 2})
    config = TrainingConfig(base_model="owner/base", long_rows=policy)
    card = model_card(record.model_copy(update={"results": results, "config": config}))
    assert f"{sentence} Of the rows that were evaluated on, 2 had more than 512 tokens" in card
    assert "more than 512 tokens" not in model_card(record)
