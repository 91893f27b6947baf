"""The engine that makes tokens by a clock."""

from __future__ import annotations

from benchmarks.own.paced_engine import PacedEngine
from sienn_ray.inference.engine import Engine


def test_it_has_all_that_a_replica_asks_of_an_engine() -> None:
    members = {name for name in vars(Engine) if not name.startswith("_")}
    assert members - set(dir(PacedEngine)) == set()
