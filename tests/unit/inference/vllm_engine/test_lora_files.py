from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from sienn_ray.errors import EngineError
from sienn_ray.inference.vllm_engine.lora_files import LoraFiles

# Makes a folder with an adapter, and ends without tidying.
CRASH = """
import os, sys
from pathlib import Path
from sienn_ray.inference.vllm_engine.lora_files import LoraFiles
print(LoraFiles(Path(sys.argv[1])).add("a", Path(sys.argv[2])), flush=True)
os._exit(1)
"""


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    folder = tmp_path / "copy"
    folder.mkdir()
    (folder / "adapter_config.json").write_text("plain")
    (folder / "adapter_model.safetensors").write_bytes(b"weights")
    return folder


def cores(parent: Path) -> list[Path]:
    return sorted(each for each in parent.iterdir() if each.is_dir())


def test_an_adapters_files_take_no_room_of_their_own(tmp_path: Path, copy: Path) -> None:
    own = LoraFiles(tmp_path / "cores").add("a", copy)
    assert {each.name for each in own.iterdir()} == {"adapter_config.json", "adapter_model.safetensors"}
    assert all(each.stat().st_nlink == 2 for each in own.iterdir())


def refuse(source: str, target: str) -> None:
    raise OSError(errno.EXDEV, "Invalid cross-device link")


def test_one_on_another_disk_is_copied(tmp_path: Path, copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "link", refuse)
    own = LoraFiles(tmp_path / "cores").add("a", copy)
    assert (own / "adapter_model.safetensors").read_bytes() == b"weights"


def test_one_that_is_copied_in_part_is_taken_for_none(
    tmp_path: Path, copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(source: str, target: str) -> None:
        if "weights" in Path(source).read_text():
            raise OSError(errno.ENOSPC, "No space left on device")

    files = LoraFiles(tmp_path / "cores")
    with monkeypatch.context() as disk:
        disk.setattr(os, "link", refuse)
        disk.setattr(shutil, "copy2", full)
        with pytest.raises(EngineError, match=r"files can't be copied to .*cores: .*No space.*; free space"):
            files.add("a", copy)
    own = files.add("a", copy)
    assert len(list(own.iterdir())) == 2
    assert [each.name for each in own.parent.iterdir() if each.is_dir()] == ["a"]


def test_closing_removes_all(tmp_path: Path, copy: Path) -> None:
    files = LoraFiles(tmp_path / "cores")
    files.add("a", copy)
    files.close()
    assert cores(tmp_path / "cores") == []


def test_another_core_that_runs_keeps_its_files(tmp_path: Path, copy: Path) -> None:
    first = LoraFiles(tmp_path / "cores")
    own = first.add("a", copy)
    second = LoraFiles(tmp_path / "cores")
    second.close()
    assert own.is_dir()
    first.close()


def test_what_a_crash_has_left_is_removed_by_the_next_core(tmp_path: Path, copy: Path) -> None:
    parent = tmp_path / "cores"
    crashed = subprocess.run([sys.executable, "-c", CRASH, parent, copy], stdout=subprocess.PIPE, text=True)
    left = Path(crashed.stdout.strip())
    assert left.is_dir()
    files = LoraFiles(parent)
    assert not left.exists()
    assert len(cores(parent)) == 1
    files.close()


def test_one_that_is_gone_already_is_removed_all_the_same(tmp_path: Path, copy: Path) -> None:
    files = LoraFiles(tmp_path / "cores")
    shutil.rmtree(files.add("a", copy))
    files.remove("a")
    assert files.add("a", copy).is_dir()
