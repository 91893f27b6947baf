from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from sienn_ray.inference.model import linear_choice
from sienn_ray.inference.model.linear_choice import MAX_ROWS, MEASURED_ROWS, Choice, LinearChoices
from sienn_ray.inference.model.linear_layouts import MklLayout, PlainLayout, available_layouts

SHAPE = (256, 512)
WHOLE = ("whole",) * len(MEASURED_ROWS)
NEEDS_MKL = pytest.mark.skipif(not torch._C.has_mkl, reason="this build of PyTorch comes without MKL")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "layouts.json"


def test_product_is_that_of_the_nearest_number_of_rows_measured() -> None:
    names = ("a", "b", "c", "d", "e")

    layout: Any = SimpleNamespace(products={name: name for name in names})
    products = Choice("any", names).products_of(layout)
    taken: dict[int, object] = {
        num_rows: products[num_rows.bit_length()] for num_rows in (1, 2, 4, 7, 8, 16, 31, 32, 64, 127, 128, 256)
    }
    assert taken == {
        1: "a", 2: "b", 4: "b", 7: "b", 8: "c", 16: "c", 31: "c", 32: "d", 64: "d", 127: "d", 128: "e", 256: "e"
    }  # fmt: skip
    assert len(products) == MAX_ROWS.bit_length() + 1


def test_what_was_measured_is_kept_for_the_next_engine(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = LinearChoices(path).choose(*SHAPE)
    assert chosen is not None
    assert chosen.layout in available_layouts()
    monkeypatch.setattr(linear_choice, "measure", None)  # would fail if it were called
    assert LinearChoices(path).choose(*SHAPE) == chosen
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_other_machine_or_build_measures_for_itself(path: Path) -> None:
    LinearChoices(path).choose(*SHAPE)
    kept = json.loads(path.read_text())
    (shapes,) = kept.values()
    path.write_text(json.dumps({"another CPU": shapes}))
    LinearChoices(path).choose(*SHAPE)
    assert set(json.loads(path.read_text())) == {"another CPU", *kept}


@pytest.mark.parametrize("content", ["", "[1]", '{"machine": {"1 x 1": 3}}', '{"machine": 1}', "\0"])
def test_file_that_is_broken_is_made_anew(path: Path, content: str, caplog: pytest.LogCaptureFixture) -> None:
    path.parent.mkdir()
    path.write_text(content)
    assert LinearChoices(path).choose(*SHAPE) is not None
    assert "can't be read and is made anew" in caplog.text
    assert json.loads(path.read_text())


def test_file_that_cannot_be_written_only_warns(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "cache").write_text("a file where a folder has to be")
    assert LinearChoices(tmp_path / "cache" / "layouts.json").choose(*SHAPE) is not None
    assert "can't be written" in caplog.text


@NEEDS_MKL
def test_nothing_is_measured_for_small_shapes_or_out_of_time(path: Path) -> None:
    default = Choice("mkl", ("packed",) * len(MEASURED_ROWS))
    assert LinearChoices(path).choose(16, 16) == default
    assert LinearChoices(path, budget_s=0.0).choose(*SHAPE) == default
    assert LinearChoices().choose(*SHAPE) == default
    assert not path.exists()


def test_choice_with_an_unknown_layout_or_product_is_not_used(path: Path) -> None:
    choices = LinearChoices(path)
    choices._found["256 x 512"] = Choice("of tomorrow", WHOLE)
    assert choices.choose(*SHAPE) is None
    choices._found["256 x 512"] = Choice("plain", ("of tomorrow",) * len(MEASURED_ROWS))
    assert choices.choose(*SHAPE) is None


@NEEDS_MKL
def test_layout_that_gives_wrong_products_is_not_used(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    product = MklLayout._product

    def wrong_for_five_rows(self: MklLayout, x: torch.Tensor) -> torch.Tensor:
        return product(self, x) * (1.001 if len(x) == 5 else 1.0)

    linear_choice._holds.cache_clear()
    monkeypatch.setattr(MklLayout, "_product", wrong_for_five_rows)
    assert LinearChoices().choose(8, 8) is None
    assert "weights of 8 x 8 give wrong products here as 'mkl'" in caplog.text
    linear_choice._holds.cache_clear()


def test_cut_products_are_there_where_they_can_be() -> None:
    weight = torch.randn(6, 4)
    assert set(PlainLayout(weight, 2).products) == {"whole", "parts", "turned parts"}
    assert set(PlainLayout(weight, 1).products) == {"whole"}
    assert set(PlainLayout(weight, 4).products) == {"whole"}
