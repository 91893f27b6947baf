"""Signatures of webhooks, as receivers check them."""

from __future__ import annotations

import base64
import re
import time
from pathlib import Path
from typing import Any

import pytest
from standardwebhooks.webhooks import Webhook

from sienn_ray.jobs.webhook_signatures import new_secret, signed_headers
from tests.support.fakes_webhooks import OTHER_SECRET, SECRET

BODY = b'{"type":"webhook.ping"}'


def test_the_specification_s_own_example() -> None:
    headers = signed_headers(
        "msg_p5jXN8AQM9LWM0D4loKWxJek",
        1614265330,
        b'{"test": 2432232314}',
        ["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"],
    )
    assert headers["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_a_secret_has_the_form_that_libraries_take() -> None:
    first, second = new_secret(), new_secret()
    assert first != second
    assert len(base64.b64decode(first.removeprefix("whsec_"))) == 32
    headers = signed_headers("msg_1", int(time.time()), BODY, [first, second])
    for secret in (first, second):
        assert Webhook(secret).verify(BODY, headers) == {"type": "webhook.ping"}


def receiver_of_the_documentation() -> Any:
    text = (Path(__file__).parents[3] / "docs" / "operations.md").read_text()
    (block,) = [each for each in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if "def is_genuine" in each]
    names: dict[str, Any] = {}
    exec(block, names)
    return names["is_genuine"]


@pytest.mark.parametrize(
    ("secrets", "body", "age_s", "expected"),
    [
        ([SECRET], BODY, 0, True),
        ([OTHER_SECRET, SECRET], BODY, 0, True),
        ([OTHER_SECRET], BODY, 0, False),
        ([SECRET], BODY + b" ", 0, False),
        ([SECRET], BODY, 400, False),
    ],
)
def test_the_receiver_that_the_documentation_shows(secrets: list[str], body: bytes, age_s: int, expected: bool) -> None:
    headers = signed_headers("msg_1", int(time.time()) - age_s, BODY, secrets)
    assert receiver_of_the_documentation()(SECRET, headers, body) is expected
