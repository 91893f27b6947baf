"""`sienn rows`: rows as the model reads them, in colours or with marks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from rich.text import Text

from sienn_ray.cli.rows import rendered
from tests.support.fakes_api import dataset_record
from tests.support.in_process_tracker import InProcessTracker
from tests.support.tiny_model import CONTRACT_ID, add_to_hub_cache
from tests.unit.cli.running import done, refused


def example(text: str = "ask: hi\x1b[31m answer: yes<e> no", **changes: Any) -> dict[str, Any]:
    start, end = text.index("yes"), text.index(" no")
    return {
        "side": None,
        "text": text,
        "truncated": False,
        "num_chars": len(text),
        "num_tokens": 9,
        "num_learned_tokens": 2,
        "left_out": False,
        "learned": [{"start": start, "end": end, "num_tokens": 2}],
        "special_tokens": [{"start": end - 3, "end": end, "token": "<e>", "is_control": True}],
        "cut": {"position": end, "num_tokens": 1},
        **changes,
    }


def test_marks_say_what_is_learned_and_what_is_cut_off() -> None:
    text = rendered(example(), has_colours=False)
    assert text == "ask: hi\N{SYMBOL FOR SUBSTITUTE FORM TWO}[31m answer: «yes<e>»✂[1 tokens cut off:] no"


def test_text_that_looks_like_a_special_token_is_marked() -> None:
    mark = {"start": 0, "end": 3, "token": "ask", "is_control": False}
    text = rendered(example(special_tokens=[mark], cut=None), has_colours=False)
    assert str(text).startswith("⟨ask⟩: hi")


def test_marks_behind_the_shown_text_are_left_out() -> None:
    shown = rendered(example(text="yes no"), has_colours=False)
    assert str(shown) == "«yes»✂[1 tokens cut off:] no"
    far = {"learned": [{"start": 4, "end": 90, "num_tokens": 2}], "special_tokens": [], "cut": None}
    assert rendered(example(text="yes no", truncated=True, num_chars=100, **far), has_colours=False) == (
        "yes «no\n... 94 more characters"
    )


def test_colours_are_on_the_characters_that_they_are_for() -> None:
    text = rendered(example(), has_colours=True)
    assert isinstance(text, Text)
    styled = {str(span.style): text.plain[span.start : span.end] for span in text.spans}
    assert styled == {"green": "yes<e>", "bold cyan": "<e>", "dim strike": " no"}


@pytest.mark.usefixtures("service")
class TestCommand:
    @pytest.fixture(autouse=True)
    def dataset(
        self, tracker: InProcessTracker, tiny_model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        import huggingface_hub

        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub-home" / "hub"))
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
        add_to_hub_cache(tiny_model_folder, tmp_path / "hub-home", CONTRACT_ID)
        tracker.put(dataset_record())

    def test_prints_rows_and_faults(self) -> None:
        printed = done("rows", "dataset-1", "--model", CONTRACT_ID)
        assert "row 0 (line 2): cut at max_length, 3 tokens left out" in printed
        assert "Hi <b> & [red]<|im_end|>" in printed
        assert "«Hello<|im_end|>»✂[3 tokens cut off:] and more" in printed
        assert "row 2 (line 4): the base model's chat template refuses a conversation: no" in printed

    def test_goes_on_behind_the_page(self) -> None:
        assert "3 rows; go on with --offset 2" in done("rows", "dataset-1", "--limit", "2")
        assert "--offset" not in done("rows", "dataset-1", "--offset", "2")

    def test_one_row_as_json(self) -> None:
        answer = json.loads(done("rows", "dataset-1", "--row", "1", "--json"))
        assert [row["row"] for row in answer["rows"]] == [1]

    def test_refusals_are_the_service_s(self) -> None:
        assert refused("rows", "nothing") == "Dataset nothing not found"
        assert "row 7 isn't there" in refused("rows", "dataset-1", "--row", "7")
        assert "row 2 (line 4)" in refused("rows", "dataset-1", "--row", "2")
        assert "--row shows one row" in refused("rows", "dataset-1", "--row", "2", "--limit", "1")
