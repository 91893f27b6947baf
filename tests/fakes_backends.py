"""Everything behind the API, faked but for what is given."""

from __future__ import annotations

from typing import Any

from sienn_ray.api.deps import Backends
from sienn_ray.settings import Settings
from sienn_ray.storage import Storage
from tests.fakes_api import FakeEngines, FakeJobLogs, FakeTracker
from tests.fakes_cluster import FakeCluster
from tests.fakes_statistics import FakeStatistics


def fake_backends(settings: Settings, **given: Any) -> Backends:
    """Backends with real storage where the settings say; `given` parts take the place of fakes."""
    storage = Storage(settings.storage_url)
    fakes = {
        "tracker": FakeTracker(),
        "engines": FakeEngines(),
        "storage": storage,
        "job_logs": FakeJobLogs(),
        "cluster": FakeCluster(),
        "statistics": FakeStatistics(storage),
    }
    return Backends(settings=settings, **{**fakes, **given})
