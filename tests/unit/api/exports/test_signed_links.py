from __future__ import annotations

from datetime import UTC, datetime
from urllib.parse import parse_qs, urlsplit

import pytest

from sienn_ray.api.exports.signed_links import LinkSigner
from sienn_ray.errors import ForbiddenError

PATH = "/api/export-files/job-1/export-1/model.gguf"
NOW = datetime(2025, 11, 12, 11, 0, tzinfo=UTC)


class Time:
    now = NOW

    def __call__(self) -> datetime:
        return self.now


def parts(link: str) -> tuple[str, str, str]:
    split = urlsplit(link)
    query = parse_qs(split.query)
    return split.path, query["expires"][0], query["signature"][0]


def test_a_link_works_until_its_time_is_over() -> None:
    time = Time()
    signer = LinkSigner(b"k" * 32, time)
    link = parts(signer.signed(PATH, 60))
    signer.check(*link)
    time.now = datetime(2025, 11, 12, 11, 0, 59, tzinfo=UTC)
    signer.check(*link)
    time.now = datetime(2025, 11, 12, 11, 1, tzinfo=UTC)
    with pytest.raises(ForbiddenError, match="this link has expired at 2025-11-12T11:01:00Z; GET /api/exports/"):
        signer.check(*link)


@pytest.mark.parametrize("changed", range(3))
def test_every_part_is_signed(changed: int) -> None:
    signer = LinkSigner(b"k" * 32, Time())
    link = list(parts(signer.signed(PATH, 60)))
    others = ["/api/export-files/job-2/export-1/model.gguf", str(int(link[1]) + 1), "A" + link[2][1:]]
    assert others[changed] != link[changed]
    link[changed] = others[changed]
    with pytest.raises(ForbiddenError, match="altered or cut"):
        signer.check(*link)


@pytest.mark.parametrize("expires", ["", "soon", "-1", "1e9", "9" * 40, "\u0661\u0662"])
@pytest.mark.parametrize("signature", ["", "\u00e9", "A" * 43])
def test_nonsense_is_refused(expires: str, signature: str) -> None:
    with pytest.raises(ForbiddenError, match="altered or cut"):
        LinkSigner(b"k" * 32, Time()).check(PATH, expires, signature)


def test_another_key_makes_other_links() -> None:
    link = parts(LinkSigner(b"k" * 32, Time()).signed(PATH, 60))
    with pytest.raises(ForbiddenError):
        LinkSigner(b"l" * 32, Time()).check(*link)
