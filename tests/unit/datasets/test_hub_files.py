"""Names of datasets on the hub, and the files that they stand for."""

from __future__ import annotations

from typing import Any

import pytest

from sienn_ray.datasets.hub_files import files_of
from sienn_ray.datasets.hub_source import HubSource
from sienn_ray.errors import InvalidDatasetError, InvalidInputError


class TestSource:
    @pytest.mark.parametrize(
        "text",
        [
            "hf:a/b",
            "hf:a/b/en",
            "hf:a/b:test",
            "hf:a/b@main",
            "hf:a/b/en:test@refs/convert/parquet",
            "hf:O-1/n_2.x@v1.0",
        ],
    )
    def test_is_written_as_it_is_read(self, text: str) -> None:
        assert str(HubSource.parsed(text)) == text

    @pytest.mark.parametrize(
        "text",
        ["", "hf:", "hf:name", "a/b", "hf:a/b/c/d", "hf:../b", "hf:a/..", "hf:a/b/../../c", "hf:https://x/y", "hf:a/b@",
         "hf:a/b:", "hf:a/b@-x", "hf:a/b@a..b", "hf:a/b@../x", "hf:a/b\n", "hf:a/b c", "hf:a--b/c", "hf:a/b.git",
         "hf:ä/b", "hf:" + "a" * 500 + "/b", "hf:a/b@" + "x" * 200, "HF:a/b"],
    )  # fmt: skip
    def test_anything_else_is_refused(self, text: str) -> None:
        with pytest.raises(InvalidInputError, match=r"hf:owner/name|is no branch, tag or commit"):
            HubSource.parsed(text)


def files(text: str, *names: str, card: Any = None) -> list[str]:
    return files_of(HubSource.parsed(text), names, card)


class TestWithoutCard:
    def test_all_files_are_for_training_where_nothing_says_otherwise(self) -> None:
        names = ("b.jsonl", "a.jsonl", "README.md", "LICENSE.txt", "dataset_infos.json", "load.py", ".gitattributes")
        assert files("hf:a/b", *names) == ["a.jsonl", "b.jsonl"]

    def test_words_of_paths_are_splits(self) -> None:
        names = (
            "data/train-00001.jsonl",
            "data/train-00000.jsonl",
            "data/dev.jsonl",
            "test/x.jsonl",
            "data/latest.jsonl",
        )
        assert files("hf:a/b", *names) == ["data/train-00000.jsonl", "data/train-00001.jsonl"]
        assert files("hf:a/b:validation", *names) == ["data/dev.jsonl"]
        assert files("hf:a/b:test", *names) == ["test/x.jsonl"]

    def test_the_only_split_needs_no_name(self) -> None:
        assert files("hf:a/b", "test.csv") == ["test.csv"]

    def test_a_configuration_is_a_folder(self) -> None:
        names = ("en/train.csv", "de/train.csv", "de/test.csv")
        assert files("hf:a/b/de", *names) == ["de/train.csv"]

    def test_most_files_decide_the_kind(self) -> None:
        assert files("hf:a/b", "a.jsonl", "b.jsonl", "old.csv") == ["a.jsonl", "b.jsonl"]
        assert files("hf:a/b", "a.jsonl", "a.csv") == ["a.jsonl"]
        assert files("hf:a/b", "story.txt") == ["story.txt"]
        assert files("hf:a/b", "a.parquet", "b.jsonl", "load.json.py", "c.csv.bak") == ["a.parquet"]
        assert files("hf:a/b", "a.jsonl.gz", "b.ndjson", "c.csv.zst") == ["a.jsonl.gz", "b.ndjson"]

    @pytest.mark.parametrize("name", ["../x.jsonl", "/etc/x.jsonl", "a/../../x.jsonl", "..\\x.jsonl", ".git/x.jsonl"])
    def test_paths_that_lead_elsewhere_are_no_files(self, name: str) -> None:
        assert files("hf:a/b", name, "good.jsonl") == ["good.jsonl"]

    @pytest.mark.parametrize(
        ("text", "names", "words"),
        [
            ("hf:a/b", ("x.py", "README.md"), "has no files of rows"),
            ("hf:a/b", ("x.py",), "hf:a/b@refs/convert/parquet"),
            ("hf:a/b", ("dev.csv", "test.csv"), "has no split 'train', but 'test', 'validation'; as in hf:a/b:test"),
            ("hf:a/b:nope", ("train.csv",), "has no split 'nope', but 'train'; as in hf:a/b:train"),
            ("hf:a/b/fr", ("en/x.csv",), "has no configuration 'fr'; its folders are 'en'"),
            ("hf:a/b", tuple(f"{number}.csv" for number in range(1001)), "has 1001 files, and at most 1000 are read"),
        ],
    )
    def test_refusals_say_what_there_is(self, text: str, names: tuple[str, ...], words: str) -> None:
        with pytest.raises(InvalidDatasetError) as error:
            files(text, *names)
        assert words in error.value.message


TWO: dict[str, Any] = {
    "configs": [
        {
            "config_name": "en",
            "data_files": [{"split": "train", "path": "en/*.jsonl"}, {"split": "test", "path": "t.csv"}],
        },
        {"config_name": "de", "data_files": "de/**"},
    ]
}


class TestCard:
    NAMES = ("en/1.jsonl", "en/2.jsonl", "en/deep/3.jsonl", "de/a/b/4.jsonl", "de/5.jsonl", "t.csv", "x.jsonl")

    def test_names_the_files(self) -> None:
        assert files("hf:a/b/en", *self.NAMES, card=TWO) == ["en/1.jsonl", "en/2.jsonl"]
        assert files("hf:a/b/en:test", *self.NAMES, card=TWO) == ["t.csv"]
        assert files("hf:a/b/de", *self.NAMES, card=TWO) == ["de/5.jsonl", "de/a/b/4.jsonl"]

    def test_several_configurations_have_to_be_chosen_from(self) -> None:
        with pytest.raises(InvalidDatasetError, match="several configurations: 'de', 'en'; name one, as in hf:a/b/de"):
            files("hf:a/b", *self.NAMES, card=TWO)
        with pytest.raises(InvalidDatasetError, match="has no configuration 'fr', but 'de', 'en'; as in hf:a/b/de"):
            files("hf:a/b/fr", *self.NAMES, card=TWO)

    def test_one_may_be_the_default(self) -> None:
        card = {"configs": [TWO["configs"][0], {**TWO["configs"][1], "default": True}]}
        assert files("hf:a/b", *self.NAMES, card=card) == ["de/5.jsonl", "de/a/b/4.jsonl"]
        alone = {"configs": [{"config_name": "only", "data_files": ["x.jsonl", "t.csv"]}]}
        assert files("hf:a/b", *self.NAMES, card=alone) == ["t.csv", "x.jsonl"]

    @pytest.mark.parametrize("folder", ["de", "./de/", "de/"])
    def test_a_folder_is_a_configuration(self, folder: str) -> None:
        card = {"configs": [{"config_name": "en", "data_dir": "en"}, {"config_name": "de", "data_dir": folder}]}
        names = ("de/train.jsonl", "de/test.jsonl", "en/train.jsonl", "deep/train.jsonl", "train.jsonl")
        assert files("hf:a/b/de", *names, card=card) == ["de/train.jsonl"]
        assert files("hf:a/b/de:test", *names, card=card) == ["de/test.jsonl"]
        with pytest.raises(InvalidDatasetError, match="several configurations: 'de', 'en'; name one"):
            files("hf:a/b", *names, card=card)

    def test_patterns_are_meant_within_the_folder(self) -> None:
        card = {"configs": [{"config_name": "de", "data_dir": "data/de", "data_files": ["./x*.jsonl", "train.jsonl"]}]}
        names = ("data/de/train.jsonl", "data/de/x1.jsonl", "train.jsonl", "x1.jsonl")
        assert files("hf:a/b", *names, card=card) == ["data/de/train.jsonl", "data/de/x1.jsonl"]

    @pytest.mark.parametrize(
        "card", [{"configs": "no"}, {"configs": [7, {"config_name": "x"}]}, {"configs": None}, {}, None, 7]
    )
    def test_a_card_that_says_nothing_is_passed_over(self, card: Any) -> None:
        assert files("hf:a/b", "train.csv", card=card) == ["train.csv"]

    @pytest.mark.parametrize("data_files", [7, None, [7], [{"split": "train"}], "*" * 400, "/".join("*" * 30)])
    def test_patterns_that_are_none_match_nothing(self, data_files: Any) -> None:
        with pytest.raises(InvalidDatasetError, match="has no files of rows"):
            files("hf:a/b", "train.csv", card={"configs": [{"data_files": data_files}]})
