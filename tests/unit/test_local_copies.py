from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from sienn_ray.local_copies import LocalCopies
from sienn_ray.storage import Storage

SIZE_BYTES = 1000
KEYS = tuple(f"adapters/{letter}" for letter in "abcd")


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    """Four adapters of the same size."""
    storage = Storage(f"file://{tmp_path}/storage")
    for number, key in enumerate(KEYS):
        folder = tmp_path / key
        folder.mkdir(parents=True)
        (folder / "weights").write_bytes(bytes([number]) * SIZE_BYTES)
        storage.publish(folder, key)
    return storage


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def process(cache: Path, num_copies: float = 2.5) -> LocalCopies:
    """As in a process of its own."""
    return LocalCopies(cache, int(num_copies * SIZE_BYTES))


def copies(cache: Path) -> set[str]:
    return {path.name for path in cache.iterdir() if not path.name.startswith(".")}


def fetch(storage: Storage, cache: Path, key: str, used_at: float) -> Path:
    """Have a process that ends take a copy."""
    folder = process(cache).fetch(storage, key)
    os.utime(cache / f".{folder.name}.lock", (used_at, used_at))
    return folder


def test_copies_are_bounded_and_the_one_used_least_lately_goes(storage: Storage, cache: Path) -> None:
    first, second = (fetch(storage, cache, key, used_at) for used_at, key in enumerate(KEYS[:2]))
    assert fetch(storage, cache, KEYS[0], 2) == first
    third = fetch(storage, cache, KEYS[2], 3)
    assert copies(cache) == {first.name, third.name}
    assert not (cache / f".{second.name}.lock").exists()
    assert fetch(storage, cache, KEYS[1], 4) == second
    assert copies(cache) == {second.name, third.name}


def test_copy_that_another_process_evicts_meanwhile_is_no_error(
    storage: Storage, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    evicted = fetch(storage, cache, KEYS[0], 0)
    scan = os.scandir

    def scan_too_late(path: str | int) -> Any:  # a number where `rmtree` reads
        if path in (str(evicted), evicted):
            shutil.rmtree(evicted, ignore_errors=True)
        return scan(path)

    monkeypatch.setattr(os, "scandir", scan_too_late)
    assert fetch(storage, cache, KEYS[1], 1).is_dir()


def test_copy_in_use_is_never_evicted(storage: Storage, cache: Path) -> None:
    user = process(cache)
    used = user.fetch(storage, KEYS[0])
    os.utime(cache / f".{used.name}.lock", (0, 0))
    other = fetch(storage, cache, KEYS[1], 1)
    third = fetch(storage, cache, KEYS[2], 2)
    assert copies(cache) == {used.name, third.name}, "it was used least lately"
    user.fetch(storage, KEYS[3])
    assert used.is_dir()
    assert not other.is_dir()


def test_limit_may_be_passed_while_all_are_in_use(storage: Storage, cache: Path) -> None:
    user = process(cache, num_copies=0.5)
    folders = [user.fetch(storage, key) for key in KEYS]
    assert copies(cache) == {folder.name for folder in folders}


def test_process_lets_go_of_copies_that_it_took_long_ago(
    storage: Storage, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sienn_ray.local_copies._MAX_HELD", 1)
    user = process(cache)
    folders = [user.fetch(storage, key) for key in KEYS]
    assert len(copies(cache)) == 2
    assert folders[3].name in copies(cache)


@pytest.mark.parametrize("altered", [b"", b"x" * SIZE_BYTES, b"\0" * (SIZE_BYTES - 1), None])
def test_copy_that_was_altered_while_nobody_looked_is_fetched_again(
    storage: Storage, cache: Path, altered: bytes | None
) -> None:
    folder = fetch(storage, cache, KEYS[0], 0)
    content = (folder / "weights").read_bytes()
    if altered is None:
        (folder / "weights").unlink()
    else:
        (folder / "weights").write_bytes(altered)
    assert fetch(storage, cache, KEYS[0], 1) == folder
    assert (folder / "weights").read_bytes() == content


def test_leftovers_of_killed_transfers_go_once_they_are_old(storage: Storage, cache: Path) -> None:
    old, young = (cache / f".{'0' * 32}.{digit * 32}" for digit in "12")
    for folder in (old, young):
        folder.mkdir(parents=True)
        (folder / "weights").write_bytes(b"x")
    for path in (old / "weights", old):
        os.utime(path, (0, 0))
    process(cache).fetch(storage, KEYS[0])
    assert not old.exists()
    assert young.exists()


def test_copy_of_an_earlier_version_is_taken_and_counted(storage: Storage, cache: Path) -> None:
    earlier = storage.fetch(KEYS[0], cache)
    user = process(cache, num_copies=1.5)
    folder = user.fetch(storage, KEYS[1])
    assert copies(cache) == {folder.name}
    assert not earlier.exists()
