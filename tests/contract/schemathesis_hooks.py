"""What Schemathesis can't know: which bytes are a dataset file. All are sent as `conversations.csv`."""

from __future__ import annotations

import csv
import io

import schemathesis
from hypothesis import strategies as st
from schemathesis.transport.serialization import Binary

_TEXT = st.text(st.characters(codec="utf-8", exclude_categories=["C"]), min_size=1, max_size=20).filter(str.strip)


def _csv(rows: list[tuple[str, str]]) -> bytes:
    file = io.StringIO()
    csv.writer(file).writerows([("instruction", "response"), *rows])
    return file.getvalue().encode()


_DATASETS = st.lists(st.tuples(_TEXT, _TEXT), min_size=1, max_size=4).map(_csv)

schemathesis.openapi.format("binary", st.one_of(_DATASETS, _DATASETS, _DATASETS, st.binary(max_size=200)).map(Binary))
