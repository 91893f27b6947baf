"""Commits of base models: resolved once, and loaded from nowhere else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sienn_ray import catalog
from sienn_ray.base_model import local_folder, tokenizer_folder
from sienn_ray.catalog import BaseModelSource, FoundBaseModel
from sienn_ray.errors import InvalidBaseModelError, OutOfReachError
from sienn_ray.hub import cached_snapshot
from sienn_ray.settings import Settings
from tests.support.fakes_hub import COMMIT, FakeHub
from tests.unit.conftest import AddToCache

pytestmark = pytest.mark.usefixtures("hub_home")

MODEL = "owner/model"
PACKAGED = "HuggingFaceTB/SmolLM2-135M-Instruct"
LLAMA = {"architectures": ["LlamaForCausalLM"], "model_type": "llama"}
OLD, NEW = "a" * 40, "b" * 40
TIMEOUT_S = 5.0


@pytest.fixture
def moving(hub: FakeHub) -> FakeHub:
    """A hub with a model that has a tag."""
    hub.files[MODEL] = {"config.json": json.dumps(LLAMA).encode(), "model.safetensors": b"w"}
    hub.commits[MODEL] = {"main": NEW, "v1.0": OLD}
    return hub


@pytest.mark.parametrize(("revision", "commit"), [(None, NEW), ("main", NEW), ("v1.0", OLD), (OLD, OLD), (NEW, NEW)])
@pytest.mark.usefixtures("moving")
def test_what_users_name_is_resolved_to_a_commit(revision: str | None, commit: str) -> None:
    assert catalog.resolve(MODEL, TIMEOUT_S, revision) == FoundBaseModel(BaseModelSource.HUB, commit)


@pytest.mark.parametrize("revision", ["v9.9", "c" * 40])
@pytest.mark.usefixtures("moving")
def test_an_unknown_revision_is_named(revision: str) -> None:
    with pytest.raises(InvalidBaseModelError, match=f"'{MODEL}' has no revision '{revision}'; give a branch"):
        catalog.resolve(MODEL, TIMEOUT_S, revision)


@pytest.mark.parametrize("revision", ["", "../main", "a..b", "/main", "main/", "a b", "x" * 200, "-option", "a\n"])
def test_a_malformed_revision_reaches_neither_hub_nor_disk(revision: str, moving: FakeHub) -> None:
    with pytest.raises(InvalidBaseModelError, match="is no branch, tag or commit"):
        catalog.resolve(MODEL, TIMEOUT_S, revision)
    assert moving.num_requests == 0


def test_a_cached_model_has_the_cache_s_commit(add_to_cache: AddToCache, hub: FakeHub) -> None:
    add_to_cache(MODEL, {"config.json": LLAMA, "model.safetensors": b"w"}, OLD)
    for revision in (None, "main", OLD):
        assert catalog.resolve(MODEL, TIMEOUT_S, revision) == FoundBaseModel(BaseModelSource.HUB_CACHE, OLD)
    assert hub.num_requests == 0


def test_a_pinned_commit_stays_when_the_branch_has_moved(add_to_cache: AddToCache, tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    add_to_cache(MODEL, {"config.json": LLAMA, "model.safetensors": b"old"}, OLD)
    add_to_cache(MODEL, {"config.json": LLAMA, "model.safetensors": b"new"}, NEW)
    assert (local_folder(MODEL, settings, OLD) / "model.safetensors").read_bytes() == b"old"
    assert (local_folder(MODEL, settings) / "model.safetensors").read_bytes() == b"new"


def test_what_is_downloaded_is_the_pinned_commit(moving: FakeHub, tmp_path: Path) -> None:
    folder = local_folder(MODEL, Settings(home=tmp_path), OLD)
    assert folder.name == OLD
    assert cached_snapshot(MODEL, OLD) == folder
    moving.commits[MODEL]["main"] = "c" * 40
    assert tokenizer_folder(MODEL, Settings(home=tmp_path)).name == "c" * 40


def test_a_package_has_no_commit_and_serves_none(hub: FakeHub) -> None:
    assert catalog.resolve(PACKAGED, TIMEOUT_S) == FoundBaseModel(BaseModelSource.PACKAGE, None)
    hub.files[PACKAGED] = {"config.json": json.dumps(LLAMA).encode(), "model.safetensors": b"w"}
    assert catalog.resolve(PACKAGED, TIMEOUT_S, "main") == FoundBaseModel(BaseModelSource.HUB, COMMIT)


@pytest.mark.usefixtures("offline")
def test_offline_the_commit_that_is_here_is_named(add_to_cache: AddToCache) -> None:
    add_to_cache(MODEL, {"config.json": LLAMA, "model.safetensors": b"w"}, OLD)
    with pytest.raises(OutOfReachError, match=f"at revision 'v2' .* to use commit {OLD}, which is here"):
        catalog.resolve(MODEL, TIMEOUT_S, "v2")


def test_a_hub_that_comes_back_is_waited_for(moving: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sienn_ray.retries._FIRST_WAIT_S", 0.0)
    moving.outages = [503, 429, 500]
    assert local_folder(MODEL, Settings(home=tmp_path), OLD).name == OLD
    assert moving.outages == []


def test_a_hub_that_stays_away_is_given_up(moving: FakeHub, tmp_path: Path) -> None:
    moving.errors[MODEL] = (503, "")
    with pytest.raises(OutOfReachError, match="the hub can't be reached"):
        local_folder(MODEL, Settings(home=tmp_path, outage_patience_s=0), OLD)


def test_a_refusal_is_final(moving: FakeHub, tmp_path: Path) -> None:
    moving.errors[MODEL] = (403, "GatedRepo")
    with pytest.raises(InvalidBaseModelError, match="is gated"):
        local_folder(MODEL, Settings(home=tmp_path), OLD)
    assert moving.num_requests == 1
