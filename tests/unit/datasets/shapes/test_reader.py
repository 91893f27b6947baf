"""Columns of rows: mapped by users, ignored by name, or refused since they change what is learned."""

from __future__ import annotations

import contextlib
import json

import pytest

from sienn_ray.datasets.columns import normalized_column
from sienn_ray.datasets.reading_options import ReadingOptions
from sienn_ray.datasets.schema import DatasetFormat
from sienn_ray.datasets.shapes.detection import detect_format
from sienn_ray.datasets.shapes.names import BESIDE, CHANGES_LEARNING, Part
from sienn_ray.datasets.shapes.table import ACCEPTED, SHAPES, documented_columns, known_columns
from sienn_ray.errors import InvalidDatasetError
from tests.unit.datasets.ingesting import fault, run
from tests.unit.datasets.shapes.reading import Row, read, refusal

PAIR = {"prompt": "q", "completion": "a"}
CHAT = {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}
TURN = [("user", "q"), ("assistant", "a")]


class TestMapping:
    @pytest.mark.parametrize(
        ("row", "columns"),
        [
            ({"Frage": "q", "Antwort": "a"}, {"Frage": "question", "Antwort": "answer"}),
            ({"Frage": "q", "Antwort": "a"}, {" FRAGE": "instruction", "antwort": "output"}),
            ({"article": "q", "summary": "a"}, {"article": "prompt", "summary": "completion"}),
            ({"dialog": CHAT["messages"]}, {"dialog": "messages"}),
            ({"problem": "q", "solution": "a", "answer": "x"}, {"solution": "completion"}),
            ({"problem": "q", "solution": "a", "answer": "x"}, {"answer": "ignore"}),
            ({"problem": "q", "solution": "x", "answer": "a"}, {"solution": "ignore"}),
            ({"prompt": "rendered", "question": "q", "response": "a"}, {"question": "prompt"}),
            ({"question": "q", "answer": "a", **{"messages": []}}, {"messages": "ignore"}),
            ({"prompt": "a", "completion": "q"}, {"prompt": "completion", "completion": "prompt"}),
            ({"prompt": "q", "completion": "a", "weight": 0.5, "label": "x"}, {"weight": "ignore", "Label": "ignore"}),
        ],
    )
    def test_columns_stand_for_others(self, row: Row, columns: dict[str, str]) -> None:
        assert read(row, columns=columns).said == TURN

    def test_parts_beside_can_be_mapped(self) -> None:
        row = {"q": "q", "a": "a", "sys": "s", "doc": "c"}
        columns = {"q": "prompt", "a": "completion", "sys": "system", "doc": "context"}
        assert read(row, columns=columns).said == [("system", "s"), ("user", "q\n\nc"), ("assistant", "a")]

    def test_a_text_can_be_chosen_though_its_parts_are_there(self) -> None:
        assert read({"text": "t", **PAIR}, columns={"text": "text"}).rows[0].text == "t"

    def test_a_column_that_only_later_rows_have_can_be_mapped(self) -> None:
        assert read(PAIR, {**PAIR, "sys": "s"}, columns={"sys": "system"}).said == [("system", "s"), *TURN]

    @pytest.mark.parametrize(
        "columns",
        [{"Fragen": "question", "Antwort": "answer"}, {"sys": "system", "Frage": "prompt", "Antwort": "answer"}],
    )
    def test_a_column_that_no_row_has_is_refused_with_those_that_are_there(self, columns: dict[str, str]) -> None:
        missing = next(iter(columns))
        message = refusal({"Frage": "q", "Antwort": "a"}, columns=columns)
        assert message == f"columns: the file has no column '{missing}'; it has 'Frage', 'Antwort'"

    def test_what_is_mapped_away_is_named(self) -> None:
        assert read({**PAIR, "label": 1}, columns={"label": "ignore"}).ignored == ["label"]
        assert read({**PAIR, "q": "q"}, columns={"q": "prompt"}).ignored == ["prompt"]


class TestUnknownLists:
    @pytest.mark.parametrize(
        "turns", [CHAT["messages"], [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]]
    )
    def test_a_conversation_of_another_name_is_told_with_the_way_out(self, turns: list[Row]) -> None:
        message = refusal({"dialog": turns})
        assert message.startswith("unknown columns: found 'dialog'")
        assert message.endswith('\'dialog\' looks like a conversation: columns={"dialog": "messages"}')
        assert read({"dialog": turns}, columns=json.loads(message[message.rindex("{") :])).said == TURN

    def test_rows_within_a_line_are_told_with_the_way_out(self) -> None:
        content = json.dumps({"data": [PAIR]})
        assert fault(content, "d.jsonl").message.endswith("if 'data' is the list of rows, name the file .json")
        assert len(run(content, "d.json")[1]) == 1


class TestIgnored:
    def test_other_columns_are_named_as_the_file_names_them(self) -> None:
        assert read({"ID": 1, **PAIR, " Source": "x", "embedding": [0.5]}).ignored == ["ID", " Source", "embedding"]

    def test_columns_of_later_rows_are_named_as_well(self) -> None:
        report, _ = run(
            "\n".join(json.dumps({**PAIR, **more}) for more in ({}, {"id": 1}, {"id": 2}, {"url": ""})), "d.jsonl"
        )
        assert report.ignored_columns == ("id", "url")

    def test_a_second_rendering_is_named(self) -> None:
        assert read({"instruction": "q", "input": "", "output": "a", "text": "q a", "prompt": "q"}).ignored == [
            "text",
            "prompt",
        ]

    def test_no_more_names_are_kept_than_can_be_shown(self) -> None:
        rows = [{**PAIR, **{f"extra {row} {index}": 1 for index in range(30)}} for row in range(20)]
        report, _ = run("\n".join(map(json.dumps, rows)), "d.jsonl")
        assert len(report.ignored_columns) == 100


class TestRefused:
    @pytest.mark.parametrize("name", sorted(CHANGES_LEARNING))
    def test_a_column_that_changes_what_is_learned_is_read_or_refused(self, name: str) -> None:
        """No such name may be among those that are ignored, whatever the shape is."""
        for row in (PAIR, CHAT, {"text": "t"}, {"prompt": "q", "chosen": "a", "rejected": "b"}):
            with contextlib.suppress(InvalidDatasetError):
                assert name not in read({**row, name: "x"}).ignored

    @pytest.mark.parametrize("name", ["weight", "Weights ", "loss_mask", "train", "images", "tool_calls", "labels"])
    def test_way_out_leads_to_success(self, name: str) -> None:
        message = refusal(PAIR, {**PAIR, name: [1]})
        shown = normalized_column(name)
        assert message.startswith(
            f"column '{shown}' would change what is learned, and can't be read beside prompt,completion"
        )
        columns = json.loads(message[message.rindex("{") :])
        assert columns == {shown: "ignore"}
        assert read(PAIR, {**PAIR, name: [1]}, columns=columns).said == TURN

    @pytest.mark.parametrize("empty", [None, "", " ", [], {}, "\u200b"])
    @pytest.mark.parametrize("name", ["images", "weight", "reasoning"])
    def test_an_empty_one_says_nothing(self, name: str, empty: object) -> None:
        assert read({**CHAT, name: empty}).said == TURN

    @pytest.mark.parametrize(
        ("row", "name"),
        [
            (CHAT, "reasoning"),
            (CHAT, "history"),
            (CHAT, "context"),
            ({"text": "t"}, "system"),
            ({"text": "t"}, "tools"),
            ({"question": "q", "answer": "a"}, "chosen"),
        ],
    )
    def test_a_part_that_the_shape_has_no_place_for(self, row: Row, name: str) -> None:
        assert refusal({**row, name: "x"}).startswith(
            f"column '{name}' would change what is learned, and can't be read beside "
        )

    def test_lines_of_the_faults_are_told(self) -> None:
        rows = [PAIR, {**PAIR, "images": ["x"]}, PAIR, {**PAIR, "weight": 0.1}]
        message = fault("\n".join(map(json.dumps, rows)), "d.jsonl").message
        assert "line 2: column 'images'" in message
        assert "line 4: column 'weight'" in message


class TestLaterRows:
    def test_rows_of_another_shape_are_refused_by_line(self) -> None:
        rows = [{"instruction": "q", "output": "a"}, CHAT, {"question": "q", "answer": "a"}]
        message = fault("\n".join(map(json.dumps, rows)), "d.jsonl").message
        assert "line 2: column 'instruction' is missing; the row has 'messages'" in message
        assert "line 3: column 'instruction' is missing; the row has 'question', 'answer'" in message

    def test_order_and_case_of_keys_may_differ(self) -> None:
        assert read(PAIR, {"Completion": "a", "PROMPT ": "q"}).said == TURN

    def test_many_layouts_are_read(self) -> None:
        rows = [{**PAIR, f"x{index}": 1} for index in range(200)]
        assert read(*rows).said == TURN


class TestRenderedText:
    @pytest.mark.parametrize(
        "mark",
        [
            "<|im_start|>",
            "<|start_header_id|>",
            "<start_of_turn>",
            "[INST]",
            "<|user|>",
            "<\uff5cUser\uff5c>",
            "<|start|>",
        ],
    )
    def test_marks_of_templates_are_said(self, mark: str) -> None:
        found = read({"text": f"{mark}user\nHi"}, {"text": "plain"}, {"text": f"<s>{mark} Hi"})
        assert found.rows[0].text == f"{mark}user\nHi"
        (note,) = found.notes
        assert note.startswith(f"the text of line 1 and 1 more was rendered with a chat template already ({mark!r});")

    @pytest.mark.parametrize("text", ["a < b | c", "<html>", "[1]", "x <|endoftext|>"])
    def test_other_texts_are_plain(self, text: str) -> None:
        assert read({"text": text}).notes == []

    def test_notes_of_arrays_count_rows(self) -> None:
        report, _ = run(json.dumps([{"text": "a"}, {"text": "<|im_start|>b"}]), "d.json")
        assert report.notes[0].startswith("the text of row 2 was rendered")


class TestTable:
    def test_no_two_shapes_are_the_same(self) -> None:
        assert len({(shape.columns, shape.rank) for shape in SHAPES}) == len(SHAPES)

    @pytest.mark.parametrize("dataset_format", DatasetFormat)
    def test_every_format_is_made_by_its_documented_columns(self, dataset_format: DatasetFormat) -> None:
        columns = documented_columns(dataset_format)
        assert ",".join(columns) in ACCEPTED
        assert detect_format(columns) is dataset_format

    def test_whatever_is_read_can_be_mapped_to(self) -> None:
        assert {name for shape in SHAPES for name in shape.parts} <= known_columns()
        assert {name for names in BESIDE.values() for name in names} <= known_columns()
        assert ReadingOptions(columns={"a": "ignore", "b": "ignore"}).columns == {"a": "ignore", "b": "ignore"}

    def test_no_name_is_two_parts_beside(self) -> None:
        names = [name for part in BESIDE for name in BESIDE[part]]
        assert len(set(names)) == len(names)
        assert Part.LABEL in BESIDE
