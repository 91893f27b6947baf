"""Everything behind the API, faked but for the tracker and what is given."""

from __future__ import annotations

from typing import Any

from sienn_ray.api.deps import Backends
from sienn_ray.settings import Settings
from sienn_ray.storage import Storage
from sienn_ray.template_check.program import Work
from tests.support.fakes_api import FakeEngines, FakeJobLogs
from tests.support.fakes_cluster import FakeCluster
from tests.support.fakes_renderings import FakeRenderings
from tests.support.fakes_statistics import FakeStatistics
from tests.support.in_process_tracker import InProcessTracker
from tests.support.receiver import FakeResolver


def fake_backends(settings: Settings, **given: Any) -> Backends:
    """Backends with real storage and a real tracker where the settings say; `given` parts take their place."""
    storage = Storage(settings.storage_url)
    fakes = {
        "tracker": InProcessTracker(settings),
        "engines": FakeEngines(),
        "storage": storage,
        "job_logs": FakeJobLogs(),
        "cluster": FakeCluster(),
        "statistics": FakeStatistics(storage),
        "renderings": FakeRenderings(),
        "resolver": FakeResolver(),
        "try_template": Work.answer,
    }
    return Backends(settings=settings, **{**fakes, **given})
