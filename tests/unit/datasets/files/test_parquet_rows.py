"""Rows of Parquet files are those that JSON would have."""

from __future__ import annotations

import decimal
import io
import threading
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sienn_ray.datasets import intake
from sienn_ray.datasets.files import parquet_limits
from sienn_ray.datasets.reading_options import ReadingOptions
from sienn_ray.storage import Storage
from tests.unit.datasets.ingesting import fault, run, turn


def parquet(columns: dict[str, Any] | pa.Table, **options: Any) -> bytes:
    sink = io.BytesIO()
    pq.write_table(columns if isinstance(columns, pa.Table) else pa.table(columns), sink, **options)
    return sink.getvalue()


@pytest.mark.parametrize("compression", ["none", "snappy", "gzip", "zstd", "lz4"])
@pytest.mark.parametrize("filename", ["d.parquet", "d.pq", "d.PARQUET"])
def test_columns_are_read(compression: str, filename: str) -> None:
    content = parquet({"instruction": ["a", "c"], "response": ["b", "d"], "id": [1, 2]}, compression=compression)
    report, rows = run(content, filename)
    assert rows == [turn(0, 1, "a", "b"), turn(1, 2, "c", "d")]
    assert (report.columns, report.guessed) == (("instruction", "response", "id"), {})


def test_rows_of_all_groups_are_counted_on() -> None:
    content = parquet({"text": [f"row {number}" for number in range(1_000)]}, row_group_size=300)
    rows = run(content, "d.parquet")[1]
    assert [(row["line"], row["text"]) for row in rows] == [(number + 1, f"row {number}") for number in range(1_000)]


def test_structs_are_messages_without_what_only_others_have() -> None:
    messages = [{"role": "user", "content": "a", "name": None}, {"role": "assistant", "content": "b", "name": "x"}]
    report, rows = run(parquet({"messages": [messages]}), "d.parquet")
    assert [message["content"] for message in rows[0]["messages"]] == ["a", "b"]
    assert "name" not in report.preview[0]["messages"][0]


def test_values_have_the_form_of_json() -> None:
    content = parquet(
        {
            "text": pa.array(["a"]).dictionary_encode(),
            "f": [float("nan")],
            "d": [decimal.Decimal("1.50")],
            "t": [datetime(2020, 1, 2)],
            "b": [b"caf\xc3\xa9"],
            "n": pa.array([None], pa.null()),
        }
    )
    preview = run(content, "d.parquet")[0].preview
    assert preview == [{"text": "a", "f": None, "d": "1.50", "t": "2020-01-02 00:00:00", "b": "café", "n": None}]


def test_columns_that_hold_no_text_are_left_out_and_named() -> None:
    content = parquet({"text": ["a"], "picture": [{"bytes": b"\xff", "path": "x"}], "raw": [b"\xff"]})
    report = run(content, "d.parquet")[0]
    assert report.ignored_columns == ("raw", "picture")
    assert report.notes == (
        "column 'picture' was left out: it holds struct<bytes: binary, path: string>, and no text",
        "column 'raw' has bytes that are no text in UTF-8; they are not read",
    )
    assert "the file has no column of text" in fault(parquet({"i": [{"b": b"x"}]}), "d.parquet").message


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("image", [{"bytes": b"\xff", "path": "x"}]),
        ("images", [[b"\xff"]]),
        ("audio", [b"\xff\xfe"]),
        ("loss_mask", pa.array([[[(1, b"x")]]], pa.list_(pa.map_(pa.int32(), pa.binary())))),
    ],
)
def test_columns_that_change_learning_are_refused_even_where_they_hold_no_text(name: str, values: Any) -> None:
    content = parquet({"prompt": ["a"], "completion": ["b"], name: values})
    message = fault(content, "d.parquet").message
    assert message.startswith(f"row 1: column '{name}' would change what is learned")
    assert f'columns={{"{name}": "ignore"}}' in message
    report = run(content, "d.parquet", options=ReadingOptions(columns={name: "ignore"}))[0]
    assert (report.num_rows, report.ignored_columns) == (1, (name,))


def test_column_that_holds_no_text_and_is_null_throughout_says_nothing() -> None:
    image = pa.array([None], pa.struct([("bytes", pa.binary()), ("path", pa.string())]))
    assert run(parquet({"prompt": ["a"], "completion": ["b"], "image": image}), "d.parquet")[0].num_rows == 1


def test_column_of_a_format_that_holds_no_text_is_named_with_what_it_holds() -> None:
    content = parquet({"prompt": [{"b": b"x"}], "completion": ["b"]})
    assert "column 'prompt' must be a string, got struct<b: binary>" in fault(content, "d.parquet").message


def test_maps_are_objects() -> None:
    function = [("name", "f"), ("description", "g")]
    tools = pa.array([[[("type", "function")]]], pa.list_(pa.map_(pa.string(), pa.string())))
    assert "tools" in fault(parquet({"prompt": ["a"], "completion": ["b"], "tools": tools}), "d.parquet").message
    kind = pa.list_(pa.struct([("type", pa.string()), ("function", pa.map_(pa.string(), pa.string()))]))
    tools = pa.array([[{"type": "function", "function": function}]], kind)
    rows = run(parquet({"prompt": ["a"], "completion": ["b"], "tools": tools}), "d.parquet")[1]
    assert '"name": "f"' in rows[0]["tools"]
    twice = pa.array([[("x", 1), ("x", 2)]], pa.map_(pa.string(), pa.int32()))
    assert fault(parquet({"text": ["a"], "m": twice}), "d.parquet").message.startswith("row 1: a map has the key")


def test_content_tells_parquet_and_options_of_text_are_noted() -> None:
    options = ReadingOptions(encoding="utf-8", separator=";", columns={"body": "text"})
    report, rows = run(parquet({"body": ["a"]}), "d.csv", options=options)
    assert [row["text"] for row in rows] == ["a"]
    assert report.guessed == {"container": "Parquet"}
    assert len(report.notes) == 2


def test_faults_have_their_rows() -> None:
    content = parquet({"prompt": ["a", "b"], "completion": ["c", " "]})
    assert fault(content, "d.parquet").message.startswith("row 2: column 'completion' must not be blank")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (parquet({"text": ["a"]})[:-8], "the Parquet file can't be read"),
        (b"PAR1" + b"\0" * 100, "the Parquet file can't be read"),
        (parquet({"text": ["a" * 100]})[:40] + parquet({"text": ["a" * 100]})[60:], "the Parquet file can't be read"),
        (b"text\na\n", "the content is no Parquet file, which begins with 'PAR1'"),
        (b"PARE" + b"\0" * 100, "the content is no Parquet file"),
        (parquet({"text": pa.array([], pa.string())}), "the file has no rows"),
        (parquet(pa.table([["a"], ["b"]], names=["text", "Text"])), "the file has the column 'Text' more than once"),
        (parquet({f"c{number}": ["a"] for number in range(1_001)}), "the file has 1,001 columns; at most 1,000"),
        (parquet({"label": ["a"]}), "unknown columns: found 'label'"),
    ],
)
def test_what_cannot_be_used_is_refused(content: bytes, message: str) -> None:
    assert fault(content, "d.parquet").message.startswith(message)


def test_long_row_is_refused() -> None:
    content = parquet({"text": ["a", "é" * 600]})
    assert fault(content, "d.parquet", max_row_bytes=1_000).message.startswith("row 2: longer than 1,000 bytes")
    nested = parquet({"text": ["a"], "n": [[{"x": "b" * 600}] * 2]})
    assert fault(nested, "d.parquet", max_row_bytes=1_000).message.startswith("row 1: longer than 1,000 bytes")


def test_file_that_unpacks_beyond_measure_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet_limits, "FREE_BYTES", 100_000)
    message = fault(parquet({"text": ["a" * 10_000_000]}, compression="zstd"), "d.parquet").message
    assert "column 'text' of row group 0 has 10,000,0" in message
    assert "write the file without compression" in message
    large = parquet({"text": ["a" * 1_000_000]}, compression="none")
    assert run(large, "d.parquet")[0].num_rows == 1


def test_dictionary_beyond_measure_is_refused_and_one_that_is_large_is_read_row_by_row(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    content = parquet({"text": ["a" * 100_000, "b" * 100_000] * 50}, use_dictionary=True)
    file = pq.ParquetFile(io.BytesIO(content))
    assert parquet_limits.rows_at_once(file.metadata.row_group(0), io.BytesIO(content), ["text"]) == 256
    monkeypatch.setattr(parquet_limits, "MAX_DICTIONARY_BYTES", 200_100)
    assert parquet_limits.rows_at_once(file.metadata.row_group(0), io.BytesIO(content), ["text"]) == 1
    assert run(content, "d.parquet")[0].num_rows == 100
    monkeypatch.setattr(parquet_limits, "MAX_DICTIONARY_BYTES", 100_000)
    assert "the dictionary of column 'text' has 200,0" in fault(content, "d.parquet").message


def test_lists_of_very_many_values_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet_limits, "MAX_LIST_VALUES", 1_000)
    content = parquet({"text": ["a"], "n": [["x"] * 2_000]})
    assert "has 2,000 values; at most 1,000 are taken in one" in fault(content, "d.parquet").message
    assert run(parquet({"text": ["a"] * 2_000}), "d.parquet")[0].num_rows == 2_000


def test_lists_of_references_to_one_long_text_are_refused_before_they_are_unpacked() -> None:
    texts = pa.DictionaryArray.from_arrays(pa.array([0] * 400_000, pa.int32()), ["x" * 1_000])
    lists = pa.ListArray.from_arrays([0, 400_000], texts)
    content = parquet({"text": ["a"], "n": lists}, store_schema=False)
    assert len(content) < 10_000
    pool = pa.default_memory_pool()
    before = pool.max_memory()
    assert fault(content, "d.parquet", max_row_bytes=4_000_000).message.startswith("row 1: longer than 4,000,000 bytes")
    assert pool.max_memory() - before < 50_000_000


def test_lists_of_all_kinds_keep_their_values_where_texts_are_in_dictionaries() -> None:
    said = [[{"role": "user", "content": f"a{n % 3}"}, {"role": "assistant", "content": "b"}] for n in range(600)]
    tags = [None if n % 2 else ["x", None, f"{n % 5}"] for n in range(600)]
    columns = {"messages": said, "tags": tags, "source": ["s"] * 600, "n": [[n] for n in range(600)]}
    report, rows = run(parquet(columns, row_group_size=450), "d.parquet", preview_rows=600)
    assert [[turn["content"] for turn in row["messages"]] for row in rows] == [[f"a{n % 3}", "b"] for n in range(600)]
    assert [(row["tags"], row["source"], row["n"]) for row in report.preview] == [
        (tags[n], "s", [n]) for n in range(600)
    ]


def test_many_values_of_one_row_are_a_long_row() -> None:
    content = parquet({"text": ["a"], "n": [[1] * 100_000]})
    assert fault(content, "d.parquet", max_row_bytes=100_000).message.startswith("row 1: longer than 100,000 bytes")
    assert run(content, "d.parquet", max_row_bytes=200_000)[0].num_rows == 1


def test_encoding_by_which_a_file_grows_without_bound_is_refused() -> None:
    content = parquet({"text": ["a" * 1_000 + str(n) for n in range(10)]},
                      use_dictionary=False, column_encoding={"text": "DELTA_BYTE_ARRAY"})  # fmt: skip
    message = fault(content, "d.parquet").message
    assert message.startswith("column 'text' of row group 0 is encoded as DELTA_BYTE_ARRAY")


def test_rows_that_have_far_more_text_than_the_file_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet_limits, "FREE_BYTES", 100_000)
    content = parquet({"text": ["a" * 1_000] * 5_000})
    assert "bytes of text, from a file of" in fault(content, "d.parquet").message


def test_lists_of_all_columns_together_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet_limits, "MAX_LIST_VALUES_TOGETHER", 3_000)
    content = parquet({"text": ["a"], "n": [["x"] * 2_000], "m": [["y"] * 2_000]})
    assert "all lists of row group 0 has 4,000 values; at most 3,000" in fault(content, "d.parquet").message


def test_parquet_is_read_from_storage_and_the_check_can_be_abandoned(tmp_path: Path) -> None:
    storage = Storage(tmp_path.as_uri())
    content = parquet({"text": [f"row {number}" for number in range(100)]})
    taken = intake.take(storage, "one", "d.parquet", io.BytesIO(content), max_row_bytes=1_000)
    assert taken.report.num_rows == 100
    abandoned = threading.Event()
    report = intake.check_rows(storage, "one", "d.parquet", max_row_bytes=1_000, abandoned=abandoned)
    assert report.num_rows == 100
    abandoned.set()
    with pytest.raises(intake.AbandonedError):
        intake.inspect_file(storage, "one", "d.parquet", max_row_bytes=1_000, abandoned=abandoned)
