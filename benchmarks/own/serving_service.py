"""Answer what `benchmarks/serving.py` asks through HTTP, with our whole service.

    python benchmarks/own/serving_service.py --work work.json --output out.json --settings '{"engine_max_batch": 16}'

With `--whole yes`, answers come in one piece. The service finds the adapters as those of completed jobs, which are
written into its database before it starts.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "peers"))

from platform_run import running_service
from serving_http import Clients
from serving_load import Work, main
from serving_material import BASE_MODEL, Material, job_id


@contextlib.contextmanager
def service(work: Work, options: argparse.Namespace) -> Iterator[Clients]:
    folder = Path(work.home)
    material = Material(folder, folder / "models")
    chosen = json.loads(options.settings or "{}")
    settings = {
        "storage_url": material.storage_url,
        "engine_max_queue": max(64, work.max_concurrency),
        "adapter_cache_max_count": max(1, len(work.adapters)),
        **chosen,
    }

    def prepare(home: Path) -> None:
        material.enter_jobs(home, len(work.adapters))

    with running_service(folder / "models", settings=settings, prepare=prepare) as running:
        port = int(running.url.rpartition(":")[2])
        yield Clients(
            port,
            lambda request: {"model": BASE_MODEL if request.adapter is None else job_id(request.adapter)},
            {"settings": chosen},
            is_streaming=not options.whole,
        )


if __name__ == "__main__":
    main(__doc__, service, "settings", "whole")
