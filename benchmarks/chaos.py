"""Kills and suspends random processes of a service while users work: is a write lost, a job stuck, an adapter mute?

Users upload and delete datasets, start fine-tunes of a random two-layer model with idempotency keys, poll and ask, and
keep what was acknowledged. Meanwhile a process of a random kind is killed, or suspended for some seconds, and probes
measure how long the API goes unanswered after each. In the end every acknowledged write has to be there once, every
job ended and every adapter answer; the exit code says whether that is so.

    python benchmarks/chaos.py [--minutes 20] [--seeds 1 2 3] [--kinds proxy controller] [--no-users]
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from tests.integration.service import make_hub_home, running_service
from tests.support.chaos.experiment import SETTINGS, run_chaos
from tests.support.chaos.faults import KINDS
from tests.support.tiny_model import TINY_ID, save_tiny_model


def main() -> int:
    options = parse_options()
    num_faults = 0
    with tempfile.TemporaryDirectory(prefix="sienn-chaos-") as scratch:
        save_tiny_model(Path(scratch) / "tiny-model")
        hub_home = make_hub_home(Path(scratch) / "hub", Path(scratch) / "tiny-model")
        for seed in options.seeds:
            with running_service(Path(scratch) / f"home-{seed}", hub_home, **SETTINGS) as service:
                outcome = run_chaos(
                    service.url,
                    service.process.pid,
                    TINY_ID,
                    seconds=options.minutes * 60,
                    seed=seed,
                    kinds=options.kinds,
                    share_suspended=options.suspended,
                    with_users=options.users,
                )
            print(f"\nseed {seed}: {outcome.num_faults} processes killed or suspended in {options.minutes:g} minutes")
            print(*outcome.lines(), sep="\n", flush=True)
            num_faults += len(outcome.faults)
    return 1 if num_faults else 0


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=20.0, help="for each seed")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS, help="of processes")
    parser.add_argument("--suspended", type=float, default=0.2, help="share of faults that suspend, rather than kill")
    parser.add_argument("--no-users", dest="users", action="store_false", help="probes only")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
