from __future__ import annotations

import hashlib
import json
from pathlib import Path

from sienn_ray.storage import Storage
from sienn_ray.training.checkpoint_files import ADAPTER_WEIGHTS, START_SOURCE
from sienn_ray.training.publication import start_facts
from sienn_ray.training.record import StartFacts


def test_the_start_is_told_by_where_it_is_from_and_its_weights(tmp_path: Path) -> None:
    storage = Storage(f"file://{tmp_path / 'storage'}")
    folder = tmp_path / "adapter"
    folder.mkdir()
    (folder / ADAPTER_WEIGHTS).write_bytes(b"weights")
    sha256 = hashlib.sha256(b"weights").hexdigest()
    storage.publish(folder, "adapters/job-1")
    assert start_facts(storage, "adapters/job-1") == StartFacts(sha256=sha256)
    (folder / START_SOURCE).write_text(json.dumps({"url": "s3://bucket/adapter"}))
    storage.publish(folder, "starts/job-2")
    assert start_facts(storage, "starts/job-2") == StartFacts(url="s3://bucket/adapter", sha256=sha256)
    assert start_facts(storage, "adapters/deleted") == StartFacts()
    assert start_facts(storage, None) is None
