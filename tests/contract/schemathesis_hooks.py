"""What Schemathesis can't know: which bytes are a dataset file, which of two numbers is larger, how links are meant.

All files are sent as `conversations.csv`.
"""

from __future__ import annotations

import csv
import io
from typing import Any

import schemathesis
from hypothesis import strategies as st
from schemathesis.transport.serialization import Binary

_MAX_WORKERS = 64
_TEXT = st.text(st.characters(codec="utf-8", exclude_categories=["C"]), min_size=1, max_size=20).filter(str.strip)


def _csv(rows: list[tuple[str, str]]) -> bytes:
    file = io.StringIO()
    csv.writer(file).writerows([("instruction", "response"), *rows])
    return file.getvalue().encode()


_DATASETS = st.lists(st.tuples(_TEXT, _TEXT), min_size=1, max_size=4).map(_csv)

schemathesis.openapi.format("binary", st.one_of(_DATASETS, _DATASETS, _DATASETS, st.binary(max_size=200)).map(Binary))


@schemathesis.hook
def before_load_schema(context: schemathesis.HookContext, raw_schema: dict[str, Any]) -> None:
    """A link's body is sent as it is. Filled up with made-up fields, hardly any request would start a job, and most of
    a scenario's data would go into them.
    """
    for item in raw_schema["paths"].values():
        for operation in item.values():
            for response in operation["responses"].values():
                for link in response.get("links", {}).values():
                    if "requestBody" in link:
                        link["x-schemathesis"] = {"merge_body": False}


@schemathesis.hook
def before_call(context: schemathesis.HookContext, case: schemathesis.Case[Any], kwargs: dict[str, Any]) -> None:
    """No schema says that `min_workers` is at most `num_workers`; two that are fine each change places if need be."""
    body = case.body
    if not isinstance(body, dict):
        return
    fewest: Any = body.get("min_workers")
    most: Any = body.get("num_workers")
    # 3.0 is an integer in JSON, and true is none.
    if {type(fewest), type(most)} <= {int, float} and 1 <= most < fewest <= _MAX_WORKERS:
        body["min_workers"], body["num_workers"] = most, fewest
