"""Two minutes of chaos; `benchmarks/chaos.py` does longer ones."""

from __future__ import annotations

from pathlib import Path

from tests.integration.service import running_service
from tests.support.chaos.experiment import SETTINGS, run_chaos
from tests.support.chaos.faults import KINDS
from tests.support.tiny_model import TINY_ID

MINUTES = 2.0


def test_nothing_is_lost_stuck_or_mute_when_processes_die_at_random(tmp_path: Path, hub_home: Path) -> None:
    with running_service(tmp_path / "home", hub_home, **SETTINGS) as service:
        outcome = run_chaos(service.url, service.process.pid, TINY_ID, seconds=MINUTES * 60, seed=2, kinds=KINDS)
    lines = "\n".join(outcome.lines())
    print(lines)
    assert outcome.num_faults >= 4, lines
    assert outcome.seen.datasets, lines
    assert outcome.seen.jobs, lines
    assert outcome.faults == [], lines
