from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path

import pytest

from sienn_ray.training.temporary_folders import clear_left_folders, temporary_folder

# Above what any system gives.
DEAD = 2**22 + 1
HOUR_S = 3600


@pytest.fixture(autouse=True)
def tmp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def make(tmp: Path, name: str, hours_ago: float) -> None:
    (tmp / name).mkdir()
    (tmp / name / "adapter_model.safetensors").write_bytes(b"weights")
    moment = time.time() - hours_ago * HOUR_S
    for path in (tmp / name / "adapter_model.safetensors", tmp / name):
        os.utime(path, (moment, moment))


@pytest.mark.parametrize(
    ("name", "hours_ago", "stays"),
    [
        (f"sienn-adapter-{DEAD}-abcd_123", 2, False),
        (f"sienn-checkpoint-{DEAD}-abcd_123", 2, False),
        (f"sienn-checkpoint-{DEAD}-abcd_123", 0.5, True),
        ("sienn-checkpoint-PARENT-abcd_123", 0, True),
        ("sienn-checkpoint-1-abcd_123", 0, True),
        # Of a process that had the id of this one before.
        ("sienn-checkpoint-OWN-abcd_123", 1000, False),
        ("sienn-adapter-abcd_123", 25, False),
        ("sienn-adapter-abcd_123", 23, True),
        ("sienn-other-abcd_123", 1000, True),
        ("sienn-adapter-notes", 1000, True),
        ("somebody-elses", 1000, True),
    ],
)
def test_what_killed_processes_have_left_goes(tmp: Path, name: str, hours_ago: float, stays: bool) -> None:
    # Not above, since processes that share the tests have to agree on their names.
    name = name.replace("PARENT", str(os.getppid())).replace("OWN", str(os.getpid()))
    make(tmp, name, hours_ago)
    clear_left_folders()
    assert (tmp / name).exists() is stays


def test_links_are_not_followed(tmp: Path) -> None:
    make(tmp, "elsewhere", 1000)
    (tmp / "sienn-adapter-abcd_123").symlink_to(tmp / "elsewhere")
    clear_left_folders()
    assert (tmp / "elsewhere" / "adapter_model.safetensors").exists()


def test_folder_names_its_process_and_goes_at_the_end() -> None:
    with temporary_folder("checkpoint") as folder:
        assert folder.name.startswith(f"sienn-checkpoint-{os.getpid()}-")
        clear_left_folders()
        assert folder.is_dir()
    assert not folder.exists()
