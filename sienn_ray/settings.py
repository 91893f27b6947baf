"""Every setting of sienn_ray, in one typed class.

Each field is read from the environment variable `SIENN_<FIELD>`; Ray Serve passes the same fields as application
arguments in `serveconfig.yaml`. docs/settings.md lists them, and a test compares the list with this class.
"""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

MIB = 1024**2
GIB = 1024**3


class EngineKind(StrEnum):
    """Engines that answer requests; `deployments.engine.load_engine` makes one of each kind."""

    BUILTIN = "builtin"


class Settings(BaseSettings):
    """Everything that a deployment can choose. Frozen: a process keeps the settings it started with."""

    model_config = SettingsConfigDict(env_prefix="SIENN_", frozen=True, extra="forbid")

    env: Literal["development", "production", "test"] = Field("development", description="Name shown by `GET /health`.")
    home: Path = Field(
        default_factory=lambda: Path.home() / ".sienn",
        description="Folder for everything that is kept on this machine: database, storage, converted base models.",
    )
    host: str = Field("127.0.0.1", description="Address the HTTP server listens on.")
    port: int = Field(8000, ge=1, le=65535, description="Port the HTTP server listens on.")
    storage_url: str = Field(
        "", description="fsspec URL for datasets, checkpoints and adapters; `file://<home>/storage`."
    )
    database_url: str = Field(
        "",
        description="SQLAlchemy URL of the job database; `sqlite:///<home>/sienn.db`. "
        "PostgreSQL needs the extra `postgres`.",
    )

    max_upload_bytes: int = Field(4 * GIB, gt=0, description="Largest dataset file that is taken.")
    max_row_bytes: int = Field(4 * MIB, gt=0, description="Longest single row in a dataset file.")
    max_concurrent_uploads: int = Field(
        32, ge=1, description="Uploads that one ingress replica takes at once; further ones wait for their turn."
    )
    upload_idle_timeout_s: float = Field(
        60.0, gt=0, description="Longest silence of a client in the middle of an upload; then the upload is given up."
    )
    statistics_timeout_s: float = Field(
        120.0, gt=0, description="Longest wait of one request for a dataset's statistics; computing them goes on."
    )
    max_body_bytes: int = Field(MIB, gt=0, description="Largest request body, but for uploads of dataset files.")
    max_running_jobs: int = Field(
        1, ge=1, description="Fine-tunes that run at once; the others wait in order of arrival."
    )
    max_pending_jobs: int = Field(10_000, ge=1, description="Fine-tunes that may wait; more are refused with a 429.")
    max_attempts: int = Field(
        3, ge=1, description="Starts of one job, the first included, before it fails because its runs get lost."
    )
    pause_timeout_s: float = Field(
        120.0,
        gt=0,
        description="Seconds in which a run that is to pause may write a checkpoint and end; then it is stopped.",
    )
    job_poll_s: float = Field(2.0, gt=0, description="Seconds between two looks at the Ray jobs of running fine-tunes.")

    training_num_workers: int = Field(1, ge=1, description="Ray Train workers of one fine-tune.")
    training_cpus_per_worker: int = Field(
        0, ge=0, description="CPUs of one training worker; 0 shares the CPUs of the largest node between the workers."
    )
    training_gpu: Literal["auto", "always", "never"] = Field(
        "auto",
        description="GPU per training worker: where the cluster has them, always (the autoscaler adds them), never.",
    )
    training_max_failures: int = Field(
        3, ge=0, description="Worker failures one Ray job survives from its checkpoints."
    )
    training_start_timeout_s: float = Field(
        600.0, gt=0, description="Seconds to wait until the cluster has room for the workers; then the job fails."
    )
    checkpoint_interval_s: float = Field(
        120.0, gt=0, description="Longest time between two checkpoints of a run; each epoch ends with one as well."
    )
    checkpoints_kept: int = Field(2, ge=1, description="Checkpoints that a run keeps, the newest ones.")
    report_interval_s: float = Field(1.0, gt=0, description="Shortest time between two progress reports of a run.")

    max_running_exports: int = Field(2, ge=1, description="Exports that run at once; the others wait.")
    export_num_cpus: float = Field(
        0.0, ge=0, description="CPUs that an export reserves; with 0 it never waits for a fine-tune that has them all."
    )
    export_wait_s: float = Field(
        50.0, gt=0, description="Longest wait of a request for its export; after that it is answered with a 202."
    )
    export_lifetime_s: float = Field(
        7 * 86400.0, gt=0, description="Seconds that a completed export is kept after it was last asked for."
    )
    download_url_lifetime_s: int = Field(
        86400, ge=1, le=7 * 86400, description="Seconds that a link to an export works; each answer has a new one."
    )
    public_url: str = Field(
        "",
        pattern=r"^$|^https?://[^/?#\s]+(/[^?#\s]*)?$",
        description="How clients reach the service, where a proxy changes it, as `https://host/path`; links to "
        "downloads begin with it. By default they begin as the request did.",
    )

    engine: EngineKind = Field(
        EngineKind.BUILTIN,
        description="Engine that answers requests; `builtin` is sienn_ray's own, for CPUs and GPUs.",
    )
    adapter_cache_max_count: int = Field(16, ge=1, description="Adapters that an engine keeps loaded.")
    adapter_cache_max_bytes: int = Field(2 * GIB, gt=0, description="Bytes of adapters that an engine keeps loaded.")
    engine_num_cpus: float = Field(0.0, ge=0, description="CPUs that an engine replica reserves.")
    engine_num_gpus: float | None = Field(
        None,
        ge=0,
        description="GPUs that an engine replica reserves; by default the catalog's, where there are any. A training "
        "worker takes a whole one: 0 leaves a single GPU to training, a short engine_idle_timeout_s shares it.",
    )
    engine_min_replicas: int = Field(
        0, ge=0, description="Replicas that an engine keeps without requests; 0 frees its memory."
    )
    engine_max_replicas: int = Field(1, ge=1, description="Replicas that an engine grows to while requests wait.")
    engine_idle_timeout_s: float = Field(
        600.0, gt=0, description="Seconds of few or no requests after which an engine's replicas become fewer."
    )
    engine_max_queue: int = Field(64, ge=1, description="Requests that may wait at an engine; more get a 503.")
    engine_max_batch: int = Field(32, ge=1, description="Requests that an engine works on at a time.")
    engine_step_tokens: int = Field(
        256, ge=1, description="Tokens that an engine computes in one step; a longer prompt is read in pieces."
    )
    engine_kv_cache_bytes: int = Field(GIB, gt=0, description="Bytes of an engine's cache of keys and values.")
    engine_queue_timeout_s: float = Field(120.0, gt=0, description="Longest wait for a place in an engine's batch.")
    engine_step_timeout_s: float = Field(
        120.0, gt=0, description="Longest time for one step of an engine; its replica is replaced after that."
    )
    engine_start_timeout_s: float = Field(300.0, gt=0, description="Longest wait for an engine to load its base model.")
    generation_timeout_s: float = Field(300.0, gt=0, description="Longest time for one answer, waiting included.")
    stream_interval_s: float | None = Field(
        None,
        ge=0,
        description="Seconds between two pieces of a streamed answer at the least; 0 sends each token as it comes. By "
        "default that is so on a GPU, while an engine on CPUs has at most six pieces a second for each of them.",
    )
    hub_timeout_s: float = Field(
        5.0, gt=0, description="Longest wait for an answer of the model hub when a job is submitted."
    )
    health_check_timeout_s: float = Field(
        2.0, gt=0, description="Longest wait for each check of `GET /api/health/detailed` and `/services`."
    )
    metrics_flush_s: float = Field(
        5.0, gt=0, description="Seconds between two batches of counted metrics that a process sends to the tracker."
    )

    @model_validator(mode="after")
    def _check_replicas(self) -> Self:
        if self.engine_min_replicas > self.engine_max_replicas:
            raise ValueError(
                f"engine_min_replicas={self.engine_min_replicas} is more than "
                f"engine_max_replicas={self.engine_max_replicas}"
            )
        return self

    @model_validator(mode="after")
    def _check_step(self) -> Self:
        """Each request of a batch is to go on by a token at every step."""
        if self.engine_step_tokens < self.engine_max_batch:
            raise ValueError(
                f"engine_step_tokens={self.engine_step_tokens} is less than engine_max_batch={self.engine_max_batch}; "
                "raise it or lower that"
            )
        return self

    @model_validator(mode="before")
    @classmethod
    def _derive_from_home(cls, values: dict[str, Any]) -> dict[str, Any]:
        """Place database and storage under `home` where nothing else was chosen."""
        home = Path(values.get("home") or Path.home() / ".sienn").expanduser().absolute()
        derived = {
            "home": home,
            "storage_url": values.get("storage_url") or f"file://{home / 'storage'}",
            "database_url": values.get("database_url") or f"sqlite:///{home / 'sienn.db'}",
        }
        return {**values, **derived}

    @property
    def models_dir(self) -> Path:
        """Base models that were converted on this machine."""
        return self.home / "models"

    @property
    def adapters_dir(self) -> Path:
        """Local copies of adapters that an engine has loaded."""
        return self.home / "cache" / "adapters"

    def without_secrets(self) -> Settings:
        """Return the settings without the database, which only the tracker reaches."""
        return self.model_copy(update={"database_url": "sqlite://"})
