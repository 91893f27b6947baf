"""Starts from adapters; those over the API are in `tests/unit/api/test_preferences.py`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sienn_ray.datasets.prompt import PromptFormat, PromptKind
from sienn_ray.datasets.render_options import RenderOptions
from sienn_ray.errors import InvalidDatasetError, InvalidInputError, TrainingError
from sienn_ray.jobs.schema import JobStatus
from sienn_ray.jobs.starts import continued, settled_parent, take_adapter, taken_adapter, without_secrets
from sienn_ray.jobs.store.job_entries import MAX_LINEAGE
from sienn_ray.jobs.store.store import Store
from sienn_ray.storage import Storage
from sienn_ray.training.checkpoint_files import START_SOURCE
from sienn_ray.training.config import LoraSettings, TrainingConfig
from tests.support.fakes_jobs import job_record, stored_job

CONFIG = TrainingConfig(base_model="owner/model", lora=LoraSettings(r=8, lora_alpha=8))
WRITTEN = {"base_model_name_or_path": "owner/model", "r": 8, "lora_alpha": 8, "peft_type": "LORA"}


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return Storage(f"file://{tmp_path / 'storage'}")


def test_all_but_the_adapter_s_own_is_the_new_run_s() -> None:
    lora = LoraSettings(r=4, lora_alpha=8, use_rslora=True, lora_dropout=0.5)
    parent = job_record(config=TrainingConfig(base_model="owner/other", quantization="nf4", lora=lora, seed=1))
    asked = TrainingConfig(base_model="owner/default", learning_rate=1e-5, method="ipo", seed=7)
    found = continued(asked, {"learning_rate", "method", "seed"}, parent)
    assert found == asked.model_copy(
        update={
            "base_model": "owner/other",
            "quantization": "nf4",
            "lora": lora.model_copy(update={"lora_dropout": 0.0}),
        }
    )


class TestSpecialTokens:
    """Jobs of which nobody said how special tokens in text are meant."""

    AUTO = job_record(config=TrainingConfig(base_model="owner/base"))
    SAID = frozenset({"special_tokens"})

    @pytest.mark.parametrize(("kind", "found"), [(PromptKind.TEXT, "tokens"), (PromptKind.CHAT, "auto")])
    def test_are_read_as_the_parent_s_run_settled_it(self, storage: Storage, kind: PromptKind, found: str) -> None:
        assert settled_parent(storage, self.AUTO) == self.AUTO  # no adapter: that is told elsewhere
        content = PromptFormat(kind, None, RenderOptions.of({}, "tokens")).to_json()
        storage.write_bytes(f"{self.AUTO.adapter_key}/prompt_format.json", content.encode())
        parent = settled_parent(storage, self.AUTO)
        assert parent.config.special_tokens == found
        asked = TrainingConfig(base_model="owner/base", special_tokens="tokens")
        assert continued(asked, self.SAID, parent).special_tokens == "tokens"

    def test_asking_for_auto_takes_the_parent_s(self) -> None:
        parent = job_record(config=TrainingConfig(base_model="owner/base", special_tokens="tokens"))
        asked = TrainingConfig(base_model="owner/base")
        assert continued(asked, self.SAID, parent).special_tokens == "tokens"
        with pytest.raises(InvalidInputError, match="special_tokens is text, and in from_job=job-1 it is tokens"):
            continued(asked.settled("text"), self.SAID, parent)


def test_what_does_not_go_with_what_is_handed_down_is_refused() -> None:
    parent = job_record(config=TrainingConfig(base_model="owner/model", quantization="nf4"))
    asked = TrainingConfig(base_model="owner/default", sharding="always")
    with pytest.raises(InvalidInputError) as caught:
        continued(asked, {"sharding"}, parent)
    assert caught.value.message == (
        "from_job=job-1 hands down quantization=nf4, and that doesn't go with what else is asked for: a base model "
        "with quantization=nf4 can't be shared out; leave out sharding=always, or quantization; or "
        "start from another job"
    )


def test_a_job_keeps_its_line_of_starts(store: Store) -> None:
    parent = store.jobs.add(job_record())
    store.jobs.update(parent.id, status=JobStatus.RUNNING, attempt=1)
    store.jobs.update(parent.id, status=JobStatus.COMPLETED)
    store.jobs.add(job_record("job-2", from_job="job-1"))
    job = stored_job(store, "job-2")
    assert (job.from_job, job.lineage, job.start_key) == ("job-1", ("job-1",), parent.adapter_key)
    assert MAX_LINEAGE > 10


class TestFolder:
    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        folder = tmp_path / "adapter"
        folder.mkdir()
        for name in ("adapter_model.safetensors", "adapter_config.json", "prompt_format.json", "notes.txt"):
            (folder / name).write_text(name)
        (folder / "adapter_config.json").write_text(json.dumps(WRITTEN))
        return folder

    def test_its_adapter_is_copied_into_storage(self, folder: Path, storage: Storage) -> None:
        key = take_adapter(str(folder), "job-1", storage, CONFIG)
        names = {entry.name for entry in storage.manifest(key).files}
        assert names == {"adapter_model.safetensors", "adapter_config.json", "prompt_format.json", START_SOURCE}
        assert storage.read_bytes(f"{key}/adapter_config.json") == json.dumps(WRITTEN).encode()

    def test_where_it_is_from_is_kept_without_secrets(self, folder: Path, storage: Storage) -> None:
        key = take_adapter(str(folder), "job-1", storage, CONFIG)
        assert json.loads(storage.read_bytes(f"{key}/{START_SOURCE}")) == {"url": str(folder)}
        assert without_secrets("https://me:pw@host/a@b/c?token=x#y") == "https://host/a@b/c"  # kingfisher:ignore
        assert without_secrets("simplecache::s3://me:pw@bucket/a") == "simplecache::s3://bucket/a"

    def test_one_without_an_adapter_is_refused(self, folder: Path, storage: Storage) -> None:
        (folder / "adapter_model.safetensors").unlink()
        with pytest.raises(InvalidInputError, match=r"has no adapter_model.safetensors; name the folder of a LoRA"):
            take_adapter(str(folder), "job-1", storage, CONFIG)
        assert storage.names("starts") == []

    def test_one_that_is_not_there_is_refused(self, tmp_path: Path, storage: Storage) -> None:
        with pytest.raises(InvalidInputError, match="can't be read"):
            take_adapter(str(tmp_path / "none"), "job-1", storage, CONFIG)

    def test_one_that_counts_otherwise_is_refused(self, folder: Path, storage: Storage) -> None:
        (folder / "adapter_config.json").write_text(json.dumps({**WRITTEN, "r": 64}))
        with pytest.raises(TrainingError, match="has r=64, and this run has 8"):
            take_adapter(str(folder), "job-1", storage, CONFIG)
        assert storage.names("starts") == []

    def test_nothing_is_left_of_it_where_no_job_is_made(self, folder: Path, storage: Storage) -> None:
        with pytest.raises(InvalidDatasetError), taken_adapter(str(folder), "job-1", storage, CONFIG):
            raise InvalidDatasetError("no rows")
        assert storage.names("starts") == []
        with taken_adapter(None, "job-1", storage, CONFIG) as key:
            assert key is None
