"""Places as ids of updates have them."""

from __future__ import annotations

import pytest

from sienn_ray.api.live.log_lines import LinePlace
from sienn_ray.api.live.places import Place
from sienn_ray.errors import InvalidInputError
from sienn_ray.jobs.news_schema import NewsCursor


@pytest.mark.parametrize(
    ("place", "text"),
    [
        (Place(NewsCursor(12, 1_762_943_409_000_000)), "12.1762943409000000"),
        (Place(NewsCursor(), LinePlace()), "0.0.0.0"),
        (Place(NewsCursor(12, 5), LinePlace(2, 41)), "12.5.2.41"),
    ],
)
def test_a_place_is_read_as_it_was_told(place: Place, text: str) -> None:
    assert place.text == text
    assert Place.parsed(text) == place


@pytest.mark.parametrize(
    "text",
    [
        "",
        "1",
        "a.b",
        "1.2.3",
        "1.2.3.4.5",
        "-1.2",
        "9" * 30 + ".1",
        "1." + "9" * 30,
        "1.2\n",
        "1.2.3." + "9" * 30,
        "1.٢",
    ],
)
def test_other_texts_are_refused(text: str) -> None:
    with pytest.raises(InvalidInputError, match="isn't the id of an event"):
        Place.parsed(text)
