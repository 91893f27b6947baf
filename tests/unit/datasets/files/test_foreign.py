"""Files of other kinds are refused once, with the way out, and not line by line."""

from __future__ import annotations

import io
import json
import pickle
import tarfile

import pytest

from sienn_ray.datasets.ingest import inspect
from tests.unit.datasets.ingesting import run

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 73\n"
PAGE = "<!DOCTYPE html>\n<html><head><title>Sign in</title></head>\n<body>x</body></html>\n"
ROWS = [{"prompt": f"question {number}", "completion": "it's so", "ok": None} for number in range(20)]


def tar() -> bytes:
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("rows.csv"))
    return sink.getvalue()


@pytest.mark.parametrize(
    ("filename", "content", "words"),
    [
        ("d.csv", POINTER, "a pointer of Git LFS; fetch the file itself with `git lfs pull`"),
        ("d.jsonl", POINTER, "a pointer of Git LFS"),
        ("d.json", POINTER, "a pointer of Git LFS"),
        ("d.txt", POINTER, "a pointer of Git LFS"),
        ("d.tsv", "\ufeff" + POINTER, "a pointer of Git LFS"),
        ("d.csv", PAGE, "an HTML page"),
        ("d.jsonl", PAGE, "an HTML page"),
        ("d.json", "\n\n<html>\n<p>", "an HTML page"),
        ("d.txt", "<!doctype HTML>", "an HTML page"),
        ("d.jsonl", "<div>\n" * 50, "XML or HTML"),
        ("d.jsonl", "<?xml version='1.0'?>\n<rows>\n<row/>\n</rows>", "XML"),
        ("d.csv", "<?xml version='1.0'?>\n<Error><Code>AccessDenied</Code></Error>", "XML"),
        ("d.json", "<rows><row/></rows>", "XML or HTML"),
        ("d.csv", "{\\rtf1\\ansi instruction,response\\par\n}", "RTF, which word processors write"),
        ("d.txt", "{\\rtf1\\ansi hello}", "RTF"),
        ("d.jsonl", "{\\rtf1\\ansi hello}", "RTF"),
        ("d.jsonl", "\n".join(map(repr, ROWS)), "Python's notation of a dict, with single quotes, and no JSON"),
        ("d.json", repr(ROWS), "Python's notation of a dict"),
        ("d.json", "[\n" + ",\n".join(map(repr, ROWS)) + "\n]", "Python's notation of a dict"),
        ("d.txt", "\n".join(map(repr, ROWS)), "Python's notation of a dict"),
        ("d.jsonl", "- prompt: a\n  completion: b\n", "YAML"),
        ("d.json", "---\nprompt: a\n", "YAML"),
        ("d.jsonl", "prompt: a\ncompletion: b\n", "YAML"),
        ("d.jsonl", "rows:\n  - prompt: a\n    completion: b\n", "YAML"),
        ("d.jsonl", "[[rows]]\nprompt = 'a'\n", "TOML"),
        ("d.csv", b"%PDF-1.7\n%\xe2\xe3", "a PDF document"),
        ("d.jsonl", b"SQLite format 3\0", "an SQLite database"),
        ("d.csv", tar(), "a tar archive; unpack it"),
        ("d.jsonl", pickle.dumps(ROWS), "a pickle of Python"),
        ("d.jsonl", b"ARROW1\0\0", "an Arrow file; write it as Parquet"),
        ("d.csv", b"BZh91AY", "a bzip2 file; unpack it"),
        ("d.csv", b"\x89PNG\r\n", "an image"),
    ],
)
def test_kind_is_told_once(filename: str, content: str | bytes, words: str) -> None:
    inspection = inspect(io.BytesIO(content.encode() if isinstance(content, str) else content), filename)
    (fault,) = inspection.faults
    assert fault.message.startswith(f"line 1: the content is {words}")


@pytest.mark.parametrize(
    ("filename", "content"),
    [
        ("d.txt", "version 2 of the story\nIt began so."),
        ("d.txt", "<|im_start|>user\nHello<|im_end|>\n"),
        ("d.txt", "prompt: a\ncompletion: b\n"),
        ("d.txt", "- one: x\n- two: y\n"),
        ("d.txt", "--- it began\nso"),
        ("d.txt", "{greeting}, dear friend\n"),
        ("d.csv", "text\n<!DOCTYPE html>\n"),
        ("d.csv", "text\nversion https://git-lfs\n"),
        ("d.jsonl", '{"text": "<html>"}'),
    ],
)
def test_text_that_only_resembles_another_kind_is_text(filename: str, content: str) -> None:
    assert run(content, filename)[0].num_rows >= 1


def test_way_out_of_python_dicts_leads_to_success() -> None:
    report, _ = run("\n".join(map(json.dumps, ROWS)), "d.jsonl")
    assert report.num_rows == len(ROWS)
