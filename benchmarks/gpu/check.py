"""Check on a card that the product computes what it should there, and how fast; without Ray, in minutes.

    python benchmarks/gpu/check.py --output check.json               # on a machine with a GPU
    python benchmarks/gpu/check.py --output check.json --rehearse    # the same checks on a CPU, with tiny shapes

It prints a line for each figure, with its limit where it has one, writes all of them to one JSON file, and ends with 1
where any failed. `check.sh` prepares what a machine without the product's packages needs.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "own"), str(HERE.parent / "peers"), str(HERE.parents[1])]

from checks import Check
from parent import Plan, run_all
from report import Report
from worker import place_of, run_checks

# Memory that scratch files may take, for a folder of models in memory rather than on a disk.
_SCRATCH_BYTES = 40 << 30


def main(program: Path, known: Sequence[Check]) -> int:
    """Run the checks that the command line names, or all.

    Args:
        program: The script that calls this; it is started again for each process that runs checks.
        known: All checks.

    Returns:
        The exit code: 1 where a figure or a check failed.
    """
    options = parse_options()
    checks = [check for check in known if not options.only or check.name.startswith(tuple(options.only))]
    if not checks:
        names = ", ".join(check.name for check in known)
        raise SystemExit(f"no such check: {', '.join(options.only)}; there are {names}")
    if options.pipe is not None:
        run_checks(checks, place_of(options), options.pipe, options.end_at)
        return 0
    report = Report(is_rehearsal=options.rehearse)
    log = options.output.with_suffix(".log")
    log.unlink(missing_ok=True)
    with tempfile.TemporaryDirectory(dir=_roomy_folder(), prefix="check-") as scratch:
        for event in run_all(Plan(checks, program, options.rehearse, Path(scratch), log, options.budget_s)):
            report.take(event)
            report.write(options.output)  # after each: what is there by then comes back even from a run that is ended
    print(report.summary())
    return 1 if report.num_failed else 0


def _roomy_folder() -> str | None:
    """A folder in memory, where it has room for the largest model; else the usual one."""
    shared = Path("/dev/shm")  # nosec B108 # a folder of its own is made in it
    is_roomy = shared.is_dir() and os.access(shared, os.W_OK) and shutil.disk_usage(shared).free > _SCRATCH_BYTES
    return str(shared) if is_roomy else None


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("check.json"))
    parser.add_argument("--rehearse", action="store_true", help="on the CPU, with tiny shapes")
    parser.add_argument(
        "--only", nargs="+", default=[], metavar="NAME", help="checks whose names begin so; by default all"
    )
    parser.add_argument("--budget-s", type=float, default=480.0, help="time for all checks")
    # For the processes that this one starts.
    parser.add_argument("--scratch", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--pipe", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--end-at", type=float, help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    from registry import all_checks

    sys.exit(main(Path(__file__).resolve(), all_checks()))
