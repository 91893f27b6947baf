"""Datasets that another service has left behind in storage: a long time ago, and just now."""

from __future__ import annotations

import os
from datetime import datetime, timedelta
from pathlib import Path

LEFT_LONG_AGO, LEFT_TODAY = "left-long-ago", "left-today"


def leave_datasets(home: Path) -> None:
    """Put both below a service's home."""
    datasets = home / "storage" / "datasets"
    for name in (LEFT_LONG_AGO, LEFT_TODAY):
        (datasets / name).mkdir(parents=True)
        (datasets / name / "file").write_bytes(b"text\n")
    moment = (datetime.now() - timedelta(hours=25)).timestamp()
    for path in (datasets / LEFT_LONG_AGO / "file", datasets / LEFT_LONG_AGO):
        os.utime(path, (moment, moment))
