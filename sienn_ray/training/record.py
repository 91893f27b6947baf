"""The record of a run, `training_run.json` beside the adapter: all that repeating it takes.

To repeat a run from its record:

1. Install the packages of `versions`, on a machine like `resolved.device`.
2. Take the files of `datasets`. Their SHA-256 says whether they are the same, the order of their rows included.
3. Get the base model at `base_model_revision` (`hf download BASE_MODEL --revision REVISION`). Its `base_model_sha256`
   is `sha256sum FILES | sha256sum` over the weight files in the order of their names, and tells a base model that was
   changed or converted from the one that was used.
4. Train with `config` (it is a `TrainingConfig`), and with `resolved` where `config` left the choice to the service:
   workers and threads above all, since they set how rows are dealt out and in which order numbers add up.

On hardware of the same kind with the same packages, the losses in `results` come out again to rounding; on other
hardware they drift apart over the steps.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import platform
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal, assert_never

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, ValidationError, computed_field

from sienn_ray import __version__
from sienn_ray.errors import ArtifactError
from sienn_ray.training.config import TrainingConfig
from sienn_ray.training.methods import Method
from sienn_ray.training.rewards import Rewards

FILE_NAME = "training_run.json"
_SHA256 = re.compile(r"[0-9a-f]{64}")
# transformers takes the first of these that it finds.
_WEIGHTS, _WEIGHTS_INDEX = "model.safetensors", "model.safetensors.index.json"
# What has a say in the numbers of a run.
_PACKAGES = (
    "torch",
    "transformers",
    "peft",
    "tokenizers",
    "safetensors",
    "bitsandbytes",
    "liger-kernel",
    "numpy",
    "ray",
)


class _Fields(BaseModel):
    # Not `forbid`: a record must stay readable when a later version adds a field.
    model_config = ConfigDict(frozen=True, extra="ignore")


DatasetRole = Literal["train", "evaluation"]


class DatasetFacts(_Fields):
    """A file that a run read, as it was uploaded."""

    role: DatasetRole
    id: str | None
    filename: str
    sha256: str
    num_rows: int
    format: str
    version: int = 1
    # How often an epoch has each row, where datasets are mixed.
    weight: float | None = None

    @property
    def purpose(self) -> str:
        """The use that the run made of it."""
        match self.role:
            case "train":
                return "training"
            case "evaluation":
                return "evaluation"
            case _:
                assert_never(self.role)


class ResolvedFacts(_Fields):
    """Values of the choices that a configuration leaves to the service."""

    method: Method
    precision: str
    attention: str
    quantization: str | None
    num_workers: int
    threads_per_worker: int
    rows_per_step: int
    packed: bool
    device: str
    gradient_checkpointing: bool = False
    # What of a layer was computed again, whether layers were compiled, and whether norms and the like were Liger's;
    # None of a run before there was a choice.
    recomputation: str | None = None
    compiled: bool | None = None
    liger: bool | None = None
    # Of a forward pass; None where rows limit it, and of a run before there was such a limit.
    micro_batch_tokens: int | None = None
    sharded: bool = False
    openmp_runtime: str | None = None
    openmp_workers_spin: bool | None = None


class Losses(_Fields):
    """Mean losses at one evaluation; epoch 0 is the base model before the first step, `step` counts optimizer steps."""

    epoch: int
    step: int | None = None
    train_loss: float | None = None
    eval_loss: float | None = None
    # Of a loss over preferences.
    train_rewards: Rewards | None = None
    eval_rewards: Rewards | None = None


class RunResults(_Fields):
    """Results of a run; the two losses are those of the adapter that was published."""

    train_loss: float | None
    eval_loss: float | None
    history: tuple[Losses, ...]
    num_steps: int
    num_tokens: int
    num_train_rows: int
    num_eval_rows: int
    num_dropped_rows: int = 0
    # Rows with more than `max_length` tokens, cut or dropped; None of a run before they were counted.
    num_long_rows: int | None = None
    num_split_rows: int | None = None
    num_cut_rows: int | None = None
    num_cut_tokens: int | None = None
    num_long_eval_rows: int | None = None
    train_s: float | None = None
    best_epoch: int | None = None
    best_step: int | None = None


class StartFacts(_Fields):
    """The adapter that a run started from."""

    # Where it was taken from, if it is no job's; without passwords and signatures.
    url: str | None = None
    # Of its `adapter_model.safetensors`; None where that was deleted before the run's end.
    sha256: str | None = None


class RunRecord(_Fields):
    """One run: what went in, what was decided on the way, what came out."""

    job_id: str
    name: str | None = None
    # The job whose adapter it started from.
    started_from: str | None = None
    # That adapter, or one of no job's; None of a run that began at the base model, or before this was noted.
    start: StartFacts | None = None
    created_at: Annotated[AwareDatetime, AfterValidator(lambda time: time.astimezone(UTC))] = Field(
        default_factory=lambda: datetime.now(UTC)
    )
    base_model_revision: str | None
    base_model_sha256: str
    datasets: tuple[DatasetFacts, ...]
    config: TrainingConfig
    resolved: ResolvedFacts
    versions: dict[str, str]
    results: RunResults

    # These two are written for whoever reads the file, and come from `config` alone, so that they can't contradict it.
    @computed_field  # type: ignore[prop-decorator]
    @property
    def base_model(self) -> str:
        """Hub id."""
        return self.config.base_model

    @computed_field  # type: ignore[prop-decorator]
    @property
    def seed(self) -> int:
        """Seed of the adapter's first weights, the order of rows, and dropout."""
        return self.config.seed


def write(folder: Path, record: RunRecord) -> None:
    """Put the record into an adapter's folder."""
    (folder / FILE_NAME).write_text(record.model_dump_json(indent=2) + "\n", encoding="utf-8")


def read(folder: Path) -> RunRecord:
    """Read the record of an adapter's folder.

    Raises:
        ArtifactError: There is none, or it isn't one.
    """
    try:
        return RunRecord.model_validate_json((folder / FILE_NAME).read_bytes())
    except (OSError, ValidationError) as error:
        raise ArtifactError(f"{FILE_NAME} can't be read: {error}") from error


def versions() -> dict[str, str]:
    """Version of everything that has a say in the numbers, without what isn't installed; nothing is imported for it."""
    found = {"python": platform.python_version(), "platform": platform.platform(), "machine": platform.machine()}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    # The metadata of an editable installation is as old as the installation.
    return {**found, "sienn_ray": __version__}


def weights_sha256(folder: Path) -> str:
    """One hash over the weight files that are loaded from a base model's folder.

    It is the SHA-256 of what `sha256sum` prints for these files, sorted by their names.

    The hub's cache costs nothing to hash, since its files are links to blobs named by their SHA-256; those names are
    taken at their word. Other files are read from start to end, once a run.

    Raises:
        ArtifactError: Weight files are missing.
    """
    lines = [f"{_file_sha256(path)}  {name}\n" for name, path in sorted(_weight_files(folder).items())]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _weight_files(folder: Path) -> dict[str, Path]:
    """Weight files by name. What a repository has beside them, such as other formats' copies, is never loaded."""
    present = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*.safetensors")}
    wanted = _wanted_names(folder, present)
    missing = sorted(wanted - present.keys())
    if missing or not wanted:
        raise ArtifactError(f"{folder} has no {', '.join(missing) or 'safetensors weights'}; get the base model again")
    return {name: present[name] for name in wanted}


def _wanted_names(folder: Path, present: dict[str, Path]) -> set[str]:
    if _WEIGHTS in present:
        return {_WEIGHTS}
    index = folder / _WEIGHTS_INDEX
    return set(json.loads(index.read_text())["weight_map"].values()) if index.is_file() else set(present)


def _file_sha256(path: Path) -> str:
    blob = path.readlink() if path.is_symlink() else None
    # Small files that git keeps itself have a blob too, named by git's own hash, which has 40 digits.
    if blob and blob.parent.name == "blobs" and _SHA256.fullmatch(blob.name):
        return blob.name
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
