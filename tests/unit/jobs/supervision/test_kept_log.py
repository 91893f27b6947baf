from __future__ import annotations

import pytest

from sienn_ray.jobs.supervision.kept_log import KeptLog, without_secrets


def kept(content: bytes, max_bytes: int, chunk_bytes: int) -> bytes:
    log = KeptLog(max_bytes)
    for start in range(0, len(content), chunk_bytes):
        log.add(content[start : start + chunk_bytes])
    return log.content()


@pytest.mark.parametrize("chunk_bytes", [1, 7, 64, 10_000])
@pytest.mark.parametrize("num_lines", [0, 1, 12])
def test_short_log_is_kept_whole(chunk_bytes: int, num_lines: int) -> None:
    content = b"".join(b"line %02d\n" % number for number in range(num_lines))
    assert kept(content, 96, chunk_bytes) == content


@pytest.mark.parametrize("chunk_bytes", [1, 7, 64, 10_000])
def test_long_log_keeps_its_head_and_its_tail(chunk_bytes: int) -> None:
    content = b"".join(b"line %04d\n" % number for number in range(1000))
    head, words, tail = kept(content, 100, chunk_bytes).partition(
        b"[9910 bytes in 991 lines of the log are left out here; SIENN_ATTEMPT_LOG_MAX_BYTES says how many are kept]\n"
    )
    assert words
    assert head == b"".join(b"line %04d\n" % number for number in range(5))
    assert tail == b"".join(b"line %04d\n" % number for number in range(996, 1000))


def test_log_without_line_ends_is_bounded_too() -> None:
    content = kept(b"x" * 100_000, 100, 1000)
    assert len(content) < 300
    assert b"lines of the log are left out here" in content


@pytest.mark.parametrize(
    ("line", "hidden"),
    [
        (b"reading s3://key:word@host/bucket failed", b"reading s3://[hidden]@host/bucket failed"),
        (b"postgresql://sienn:p%40ss@db:5432/x", b"postgresql://[hidden]@db:5432/x"),  # kingfisher:ignore
        (b"token hf_abcdefghijklmnopqrstuvwxyz", b"token [hidden]"),
        (b"key AKIAABCDEFGHIJKLMNOP used", b"key [hidden] used"),
        (b"it is my-very-secret", b"it is [hidden]"),
        (b"see https://host:8000/path, 12:30 me@host", b"see https://host:8000/path, 12:30 me@host"),
        (b"user of loss 0.5", b"user of loss 0.5"),
    ],
)
def test_secrets_are_hidden(line: bytes, hidden: bytes) -> None:
    environment = {
        "AWS_SECRET_ACCESS_KEY": "my-very-secret",
        "MY_TOKEN": "",
        "HF_TOKEN": "short",
        "USER": "user of loss",
    }
    assert without_secrets(line, environment) == hidden
