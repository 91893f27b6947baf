"""Every setting of sienn_ray, in one typed class.

Each field is read from the environment variable `SIENN_<FIELD>`; Ray Serve passes the same fields as application
arguments in `serveconfig.yaml`. docs/settings.md lists them, and a test compares the list with this class.
"""

from __future__ import annotations

import ipaddress
import re
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from sienn_ray.access.claims import ClaimLimits
from sienn_ray.access.quotas import Quotas
from sienn_ray.access.token_lifetimes import LONGEST_TOKEN_LIFETIME_S
from sienn_ray.admission import AdmissionRules
from sienn_ray.fault_words import words_of
from sienn_ray.outbound.addresses import AddressRules
from sienn_ray.outbound.rules import OutboundRules

if TYPE_CHECKING:
    from sienn_ray.access.claim_rules import ClaimRules

MIB = 1024**2
GIB = 1024**3
LOCALHOST = "localhost"
_CENTURY_S = 100 * 365 * 86400.0
_DEFAULT_RATE_LIMITS = "100/minute;1000/hour"
# Of one owner, as many as a replica of the ingress computes at once.
_DEFAULT_MAX_STATISTICS = 2
# A CPU's products are as quick a token with few rows as with many; a GPU's want thousands (docs/decisions/0064).
_CPU_STEP_TOKENS, _GPU_STEP_TOKENS = 256, 8192
ENV_PREFIX = "SIENN_"


def fault_words(error: ValidationError) -> str:
    """Say what is wrong with settings, in a sentence with the names of their variables.

    Args:
        error: What `Settings()` raised.
    """
    return "; ".join(_fault_in_words(fault) for fault in error.errors())


def _fault_in_words(fault: Any) -> str:
    words = words_of(fault).replace("has to be", "must be")
    if not fault["loc"]:  # what doesn't fit together names the settings itself
        return words
    name = f"{ENV_PREFIX}{'_'.join(map(str, fault['loc']))}".upper()
    # A URL may hold a password.
    is_secret = name.endswith("_URL") or str(fault["loc"][0]) in Settings.secret_names()
    return f"{name} {words}" if is_secret else f"{name} is {str(fault['input'])!r}, but {words}"


def is_loopback(host: str) -> bool:
    """Return whether only this machine reaches what listens on an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == LOCALHOST


def _split(names: Any) -> Any:
    return tuple(filter(None, map(str.strip, names.split(",")))) if isinstance(names, str) else names


# A list with commas between, in the environment as in `serveconfig.yaml`.
_Names = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split)]
# As browsers write it in the header `Origin`.
_ORIGIN = re.compile(r"\*|https?://[a-z0-9.-]+(:[0-9]{1,5})?|https?://\[[0-9a-f:]+\](:[0-9]{1,5})?")


class EngineKind(StrEnum):
    """Engines that answer requests; `deployments.engine.load_engine` makes one of each kind."""

    BUILTIN = "builtin"
    VLLM = "vllm"


# Leaves the kind of a base model's engine to `deployments.engine_choice`.
AUTO_ENGINE: Literal["auto"] = "auto"


class Settings(BaseSettings):
    """Everything that a deployment can choose. Frozen: a process keeps the settings it started with."""

    # Ray shows the error of a deployment that can't be made, and an input may be a secret.
    model_config = SettingsConfigDict(env_prefix=ENV_PREFIX, frozen=True, extra="forbid", hide_input_in_errors=True)

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
    database_url: SecretStr = Field(
        SecretStr(""),
        description="SQLAlchemy URL of the job database; `sqlite:///<home>/sienn.db`. "
        "PostgreSQL needs the extra `postgres`.",
    )

    ingress_replicas: int = Field(
        1,
        ge=1,
        description="Replicas of the ingress. One passes on some 1,500 pieces of streamed answers a second, of all "
        "engines together, and takes a CPU then.",
    )
    max_upload_bytes: int = Field(4 * GIB, gt=0, description="Largest dataset file that is taken.")
    max_row_bytes: int = Field(4 * MIB, gt=0, description="Longest single row in a dataset file.")
    max_concurrent_uploads: int = Field(
        32, ge=1, description="Uploads that one ingress replica takes at once; further ones wait for their turn."
    )
    max_waiting_uploads: int = Field(
        300, ge=0, description="Uploads that may wait for their turn at an ingress replica; more get a 503."
    )
    upload_queue_timeout_s: float = Field(
        60.0, gt=0, description="Longest wait of an upload for its turn; after that it is answered with a 503."
    )
    upload_idle_timeout_s: float = Field(
        60.0, gt=0, description="Longest silence of a client in the middle of an upload; then the upload is given up."
    )
    transfer_min_bytes_per_s: int = Field(
        8192,
        ge=1,
        description="Lowest mean rate at which a client sends a body or reads a response, over a window of waiting for "
        "it; a slower client is given up. Reading is looked at where Serve's proxies have flow control.",
    )
    transfer_window_s: float = Field(
        60.0, gt=0, description="Seconds of waiting for a client over which its mean rate is taken."
    )
    max_downloads: int = Field(100, ge=1, description="Downloads that an ingress replica sends at once.")
    max_open_answers: int = Field(
        400, ge=1, description="Requests to models, streamed or not, that an ingress replica has open at once."
    )
    max_log_followers: int = Field(
        100,
        ge=1,
        description="Logs that are followed through an ingress replica at once; half of them for one owner, unless it "
        "is an admin.",
    )
    max_listeners: int = Field(
        1000,
        ge=1,
        description="Listeners to live updates that an ingress replica has at once; half of them for one owner, unless "
        "it is an admin.",
    )
    max_waiting_requests: int = Field(
        100, ge=1, description="Requests that wait at an ingress replica for an export or for statistics at once."
    )
    stream_idle_timeout_s: float = Field(
        3600.0, gt=0, description="Longest time without news in a followed log or a stream of events; then it ends."
    )
    statistics_timeout_s: float = Field(
        120.0, gt=0, description="Longest wait of one request for a dataset's statistics; computing them goes on."
    )
    max_body_bytes: int = Field(MIB, gt=0, description="Largest request body, but for uploads of dataset files.")
    max_running_jobs: int = Field(
        1, ge=1, description="Fine-tunes that run at once; the others wait, and owners take turns."
    )
    owner_max_pending_jobs: int | None = Field(
        None,
        ge=0,
        description="Fine-tunes of one owner that may wait; more are refused with a 429. By default any.",
    )
    owner_max_running_jobs: int | None = Field(
        None, ge=0, description="Fine-tunes of one owner that run at once; by default any number."
    )
    max_pending_jobs: int = Field(10_000, ge=1, description="Fine-tunes that may wait; more are refused with a 429.")
    max_attempts: int = Field(
        3,
        ge=1,
        description="Runs of one job, or of one export, that may be lost in a row without progress in between, before "
        "it fails; what goes with its cluster or node isn't counted.",
    )
    run_silence_timeout_s: float = Field(
        3600.0,
        gt=0,
        description="Longest silence of a run; then it is stopped, which counts as a loss, and goes on from its last "
        "checkpoint.",
    )
    pause_timeout_s: float = Field(
        120.0,
        gt=0,
        description="Seconds in which a run that is to pause may write a checkpoint and end; then it is stopped.",
    )
    job_poll_s: float = Field(2.0, gt=0, description="Seconds between two looks at the Ray jobs of running fine-tunes.")

    max_num_epochs: int = Field(10, ge=10, le=10_000, description="Most epochs that a fine-tune may ask for.")
    max_batch_size: int = Field(32, ge=32, le=4096, description="Largest `batch_size` that a fine-tune may ask for.")
    max_row_tokens: int = Field(
        2048,
        ge=2048,
        le=1_048_576,
        description="Largest `max_length` that a fine-tune may ask for. Memory grows with it, and base models have a "
        "limit of their own.",
    )

    training_num_workers: int = Field(1, ge=1, description="Ray Train workers of one fine-tune.")
    training_cpus_per_worker: int = Field(
        0, ge=0, description="CPUs of one training worker; 0 shares the CPUs of the largest node between the workers."
    )
    training_gpu: Literal["auto", "always", "never"] = Field(
        "auto",
        description="GPU per training worker: where the cluster has them, always (the autoscaler adds them), never.",
    )
    training_max_failures: int = Field(
        3, ge=0, description="Worker failures in a row, without a newer checkpoint in between, that a run survives."
    )
    training_start_timeout_s: float = Field(
        600.0, gt=0, description="Seconds to wait until the cluster has room for the workers; then the job fails."
    )
    checkpoint_interval_s: float = Field(
        120.0, gt=0, description="Longest time between two checkpoints of a run; each epoch ends with one as well."
    )
    checkpoints_kept: int = Field(2, ge=1, description="Checkpoints that a run keeps, the newest ones.")
    checkpoint_lifetime_s: float = Field(
        30 * 86400.0,
        gt=0,
        description="Seconds that checkpoints of failed, cancelled and paused jobs are kept; a job that goes on after "
        "that begins anew.",
    )
    leftover_age_s: float = Field(
        7 * 86400.0,
        ge=86400,
        description="Seconds after which files of jobs and exports that the job database doesn't know are deleted.",
    )
    attempt_log_max_bytes: int = Field(
        16 * MIB,
        ge=1024,
        description="Bytes of each attempt's log that are kept in storage once it has ended; of a longer one its head "
        "and its tail.",
    )
    report_interval_s: float = Field(1.0, gt=0, description="Shortest time between two progress reports of a run.")

    max_running_exports: int = Field(2, ge=1, description="Exports that run at once; the others wait.")
    export_num_cpus: float = Field(
        0.0, ge=0, description="CPUs that an export reserves; with 0 it never waits for a fine-tune that has them all."
    )
    export_wait_s: float = Field(
        50.0, gt=0, description="Longest wait of a request for its export; after that it is answered with a 202."
    )
    export_silence_timeout_s: float = Field(
        3600.0,
        gt=0,
        description="Longest silence of an export, its wait for memory included; then it is stopped and made again.",
    )
    export_lifetime_s: float = Field(
        7 * 86400.0, gt=0, description="Seconds that a completed export is kept after it was last asked for."
    )
    owner_max_open_exports: int | None = Field(
        None,
        ge=0,
        description="Exports of one owner that may wait or run; more are refused with a 429. By default any.",
    )
    owner_max_exports: int | None = Field(
        None,
        ge=0,
        description="Exports of one owner that wait, run or are kept; more are refused with a 403. By default any.",
    )
    owner_max_stored_bytes: int | None = Field(
        None,
        ge=0,
        description="Bytes of datasets, adapters and exports that one owner may store; more are refused with a 403. By "
        "default any number.",
    )
    owner_max_statistics: int | None = Field(
        None,
        ge=1,
        description="Datasets of one owner whose statistics are computed at once; more are refused with a 429. By "
        "default 2 where requests need an API key, and else any number.",
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
    auth: Literal["auto", "on", "off"] = Field(
        "auto",
        description="Whether requests need an API key. `auto` asks for none on a loopback address, and starts on no "
        "other one; `off` lets whoever reaches the service do everything.",
    )
    admin_key: SecretStr | None = Field(
        None,
        min_length=32,
        description="A key with which one may do everything, to make the first API keys with; at least 32 characters.",
    )
    ray_auth: Literal["required", "off"] = Field(
        "required",
        description="Whether Ray's own ports have to ask for Ray's token (`RAY_AUTH_MODE=token`) where other machines "
        "reach them; `off` deploys onto a cluster that runs whatever anyone sends it.",
    )
    rate_limits: str | None = Field(
        None,
        description="Requests that one client address may send, as `100/minute;1000/hour`, which is the default where "
        "requests need an API key; empty is any number. Keys may have limits of their own.",
    )
    token_lifetime_s: int = Field(
        900,
        ge=60,
        le=LONGEST_TOKEN_LIFETIME_S,
        description="Seconds that an access token of `POST /api/auth/token` is valid.",
    )
    refresh_token_lifetime_s: int = Field(
        30 * 86400,
        ge=0,
        le=366 * 86400,
        description="Seconds for which new access tokens are given for refresh tokens; then the API key is needed "
        "again. 0 gives no refresh tokens.",
    )
    token_key_lifetime_s: int = Field(
        90 * 86400, ge=LONGEST_TOKEN_LIFETIME_S, description="Age at which a key that signs tokens gets a successor."
    )
    token_key_secret: SecretStr | None = Field(
        None,
        min_length=32,
        description="Encrypts the private keys that sign tokens, in the job database; at least 32 characters. Without "
        "it, nothing but the database keeps others from them.",
    )
    token_rate_limits: str = Field(
        "30/minute;300/hour",
        description="Requests for tokens and sessions, right or wrong, that one client address may send where requests "
        "need an API key, beside `rate_limits`; empty is any number.",
    )
    session_lifetime_s: int = Field(
        12 * 3600, ge=60, le=30 * 86400, description="Seconds after which a session of a browser ends."
    )
    session_idle_timeout_s: int = Field(
        3600, ge=60, description="Seconds without a request after which a session of a browser ends."
    )
    oidc_issuer: str = Field(
        "",
        pattern=r"^$|^https?://[^?#\s]+$",
        description="An OpenID Connect issuer whose tokens are taken as well, as `https://id.example.org/realms/ml`; "
        "its discovery document says the rest.",
    )
    oidc_audience: _Names = Field(
        (), description="Audiences of that issuer's access tokens that are this service, with commas between."
    )
    oidc_algorithms: _Names = Field(
        ("RS256", "ES256"), description="Algorithms of that issuer's signatures that are taken, with commas between."
    )
    oidc_clock_skew_s: float = Field(
        60.0, ge=0, le=300, description="Seconds by which that issuer's clock may differ from ours."
    )
    oidc_scope_claim: str = Field(
        "scope", min_length=1, description="Claim that has a caller's scopes; `realm_access.roles` leads inwards."
    )
    oidc_groups_claim: str = Field(
        "groups", min_length=1, description="Claim that has a caller's groups: a list, or a text that is one of them."
    )
    oidc_scopes: _Names = Field(
        (),
        description="Our scopes by the values of both claims, as `ml-team=train,ml-team=read`; by default values with "
        "the names of our scopes, but for `admin`.",
    )
    oidc_admin_group: str = Field("", description="Group of that claim that makes an admin; by default none does.")
    oidc_default_scopes: _Names = Field((), description="Scopes of every caller whom that issuer knows.")
    oidc_client_id: str = Field(
        "", description="Client id of this service at that issuer, for logins of browsers (`/api/auth/login`)."
    )
    oidc_client_secret: SecretStr | None = Field(
        None, description="Its client secret; none for a public client, which PKCE alone protects."
    )
    oidc_login_scopes: _Names = Field(
        ("openid", "profile"), description="Scopes that a login asks the issuer for, with commas between."
    )
    oidc_allow_http: bool = Field(
        False, description="Take an issuer without TLS on other addresses than loopback ones; for tests alone."
    )
    key_tokens_per_minute: int | None = Field(
        None,
        ge=1,
        description="Tokens that the answers of one key, or of one owner who comes without a key, may take in a "
        "minute, prompts included, unless the key has a limit of its own; by default any number.",
    )
    key_max_open_answers: int | None = Field(
        None,
        ge=1,
        description="Requests to models that one key, or one owner who comes without a key, may have open at once, "
        "unless the key has a limit of its own; by default any number.",
    )
    trusted_proxies: _Names = Field(
        (),
        description="Addresses and networks of proxies in front of the service, with commas between, whose "
        "`X-Forwarded-For` says where a request comes from.",
    )
    allowed_hosts: _Names = Field(
        (),
        description="Names under which the service may be reached, as `sienn.example.org` or `*.example.org`, with "
        "commas between; by default all, and on a loopback address `localhost`. Addresses are always allowed.",
    )
    cors_origins: _Names = Field(
        (),
        description="Web sites whose pages may use the service, as `https://app.example.org`, with commas between; `*` "
        "lets all in.",
    )
    cors_development: bool = Field(
        False,
        description="Let in what development servers of web front ends serve on this machine: ports 3000, 3001, 3002 "
        "and 5173.",
    )

    max_webhooks: int = Field(20, ge=0, description="Webhooks that one owner may have.")
    webhook_allowed_networks: _Names = Field(
        (),
        description="Networks that webhooks may lead to although they aren't public, as `10.1.0.0/16`, with commas "
        "between; the address of a cloud's metadata is allowed by its own only.",
    )
    webhook_allow_http: bool = Field(
        False, description="Whether webhooks may begin with `http://`, and go without encryption."
    )
    webhook_timeout_s: float = Field(
        15.0, gt=0, le=120, description="Longest time of one attempt to deliver to a webhook, its connection included."
    )
    webhook_max_attempts: int = Field(
        12,
        ge=1,
        le=100,
        description="Attempts to deliver one thing to a webhook: after 5 s, 15 s, 45 s, then up to 6 h apart.",
    )
    max_concurrent_webhooks: int = Field(
        16,
        ge=1,
        le=256,
        description="Attempts to deliver to webhooks at once; of one owner a quarter or two, of one webhook two.",
    )
    webhook_give_up_after_s: float = Field(
        5 * 86400.0,
        gt=0,
        le=_CENTURY_S,
        description="Seconds of failures after which a webhook is deactivated, once a delivery is given up.",
    )
    webhook_delivery_lifetime_s: float = Field(
        14 * 86400.0, gt=0, le=_CENTURY_S, description="Seconds that deliveries to webhooks are kept after their end."
    )

    audit_lifetime_s: float = Field(
        365 * 86400.0, gt=0, le=_CENTURY_S, description="Seconds that entries of the audit log are kept."
    )
    audit_max_rows: int = Field(
        1_000_000, ge=1000, description="Entries of the audit log that are kept, the newest ones; one has half a KiB."
    )

    engine: EngineKind | Literal["auto"] = Field(
        AUTO_ENGINE,
        description="Engine that answers requests: `builtin` is sienn_ray's own, for CPUs and GPUs; `vllm` is vLLM; "
        "`auto` is vLLM where an engine has a GPU and its nodes have vLLM, and else `builtin`, which then also serves "
        "the adapters that vLLM can't.",
    )
    engine_python: Path | None = Field(
        None,
        description="Python interpreter with vLLM, this package and the same Ray, at the same path on all nodes with "
        "engines; by default vLLM is looked for where Ray's workers run.",
    )
    engine_max_lora_rank: int = Field(
        64,
        ge=1,
        le=512,
        description="Largest rank of the adapters that a vLLM engine takes; it sets memory aside for as many of this "
        "rank as share a batch.",
    )
    engine_tensor_parallel: int = Field(
        1,
        ge=1,
        description="GPUs of one node between which a vLLM replica splits its base model; more than one needs the "
        "engine `vllm`.",
    )
    adapter_copies_max_bytes: int = Field(
        10 * GIB,
        gt=0,
        description="Bytes of adapters that engines and exports keep on the disk of a node; those in use always stay.",
    )
    adapter_cache_max_count: int = Field(16, ge=1, description="Adapters that an engine keeps loaded.")
    adapter_cache_max_bytes: int = Field(3 * GIB, gt=0, description="Bytes of adapters that an engine keeps loaded.")
    adapter_load_timeout_s: float = Field(
        120.0, gt=0, description="Longest time for loading an adapter from storage; requests for it then get a 503."
    )
    max_engines: int = Field(
        4,
        ge=1,
        description="Engines that run at once, listed ones included; for another one, the one that was idle for the "
        "longest time ends, and while all are busy, it gets a 503.",
    )
    engine_memory_bytes: int | None = Field(
        None,
        ge=0,
        description="Memory that an engine replica reserves on its node; by default what its program, its weights and, "
        "without a GPU, engine_kv_cache_bytes take. 0 reserves none.",
    )
    engine_node_memory_bytes: int | None = Field(
        None,
        gt=0,
        description="Memory of the largest node that an autoscaler may add, where that is more than the largest node "
        "has that is there; an engine that needs more is refused.",
    )
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
    engine_step_tokens: int | None = Field(
        None,
        ge=1,
        description="Tokens that an engine computes in one step; a longer prompt is read in pieces. By default 256 on "
        "a CPU, and 8192 on a GPU.",
    )
    engine_kv_cache_bytes: int | None = Field(
        None,
        gt=0,
        description="Bytes of an engine's cache of keys and values. By default 1 GiB on a CPU, and on a GPU nine "
        "tenths of what is free of its share beside the weights, the adapters and a step.",
    )
    engine_cuda_graphs: bool = Field(
        True,
        description="Whether an engine on a GPU replays decoding steps as CUDA graphs, where the base model allows.",
    )
    engine_queue_timeout_s: float = Field(120.0, gt=0, description="Longest wait for a place in an engine's batch.")
    engine_step_timeout_s: float = Field(
        120.0, gt=0, description="Longest time for one step of an engine; its replica is replaced after that."
    )
    engine_max_failed_steps: int = Field(
        3, ge=1, description="Failed steps in a row after which an engine's replica is replaced."
    )
    engine_start_timeout_s: float = Field(300.0, gt=0, description="Longest wait for an engine to load its base model.")
    generation_timeout_s: float = Field(300.0, gt=0, description="Longest time for one answer, waiting included.")
    stream_interval_s: float | None = Field(
        None,
        ge=0,
        description="Seconds between two pieces of a streamed answer at the least; 0 sends each token as it comes. By "
        "default the streams of an engine share 500 pieces a second on GPUs, and six for each of its CPUs without.",
    )
    hub_timeout_s: float = Field(
        5.0, gt=0, description="Longest wait for an answer of the model hub when a job is submitted."
    )
    hub_datasets_use_token: bool = Field(
        False,
        description="Whether imports of datasets ask the hub with the service's `HF_TOKEN`, so that every user can "
        "import the private and gated datasets that it may read.",
    )
    allowed_base_models: _Names = Field(
        (),
        description="Hub ids that may be used, or patterns such as `Qwen/*`, with commas between; by default all.",
    )
    max_base_model_bytes: int = Field(
        200 * GIB,
        gt=0,
        description="Most bytes that a base model's files may have, to be downloaded from the hub.",
    )
    outage_patience_s: float = Field(
        300.0,
        ge=0,
        description="Longest time that runs, exports and engines retry the model hub or an object store that is out of "
        "reach.",
    )
    health_check_timeout_s: float = Field(
        2.0, gt=0, description="Longest wait for each check of `GET /api/health/detailed` and `/services`."
    )
    metrics_flush_s: float = Field(
        5.0,
        gt=0,
        description="Seconds between two batches of metrics, and of usage, that a process sends to the tracker.",
    )
    usage_retention_days: int = Field(400, ge=1, description="Days that usage by day, key and model is kept.")

    @field_validator("rate_limits", "token_rate_limits")
    @classmethod
    def _check_rate_limits(cls, limits: str | None) -> str | None:
        if limits:
            from sienn_ray.access.rate_limits import parsed

            parsed(limits)
        return limits

    @field_validator("webhook_allowed_networks")
    @classmethod
    def _check_networks(cls, networks: tuple[str, ...]) -> tuple[str, ...]:
        AddressRules.parsed(networks)
        return networks

    @field_validator("storage_url", "public_url")
    @classmethod
    def _check_no_password(cls, url: str) -> str:
        """Answers, logs and model cards name what is in storage by its whole URL."""
        if urlsplit(url).password is not None:
            raise ValueError(
                "holds a password, and this URL is shown to users; leave it out, and give credentials as the library "
                "of its scheme takes them (such as AWS_SECRET_ACCESS_KEY)"
            )
        return url

    @field_validator("cors_origins")
    @classmethod
    def _check_origins(cls, origins: tuple[str, ...]) -> tuple[str, ...]:
        if wrong := next((each for each in origins if not _ORIGIN.fullmatch(each)), None):
            raise ValueError(f"{wrong!r} is no origin; write one as https://app.example.org, without a path")
        return origins

    @field_validator("oidc_algorithms")
    @classmethod
    def _check_algorithms(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        from sienn_ray.access.jwts import ASYMMETRIC_ALGORITHMS

        if wrong := next((each for each in names if each not in ASYMMETRIC_ALGORITHMS), None):
            raise ValueError(f"{wrong!r} isn't taken; there are {', '.join(ASYMMETRIC_ALGORITHMS)}")
        return names

    @field_validator("oidc_scopes")
    @classmethod
    def _check_oidc_scopes(cls, texts: tuple[str, ...]) -> tuple[str, ...]:
        from sienn_ray.access.claim_rules import parsed_scopes

        parsed_scopes(texts)
        return texts

    @field_validator("oidc_default_scopes")
    @classmethod
    def _check_default_scopes(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        from sienn_ray.access.claim_rules import named_scope

        for name in names:
            named_scope(name)
        return names

    @model_validator(mode="after")
    def _check_issuer(self) -> Self:
        if not self.oidc_issuer:
            return self
        url = urlsplit(self.oidc_issuer)
        if url.scheme != "https" and not self.oidc_allow_http and not is_loopback(url.hostname or ""):
            raise ValueError(
                f"oidc_issuer={self.oidc_issuer} has no TLS, so that anybody on the way could make tokens; write "
                "https://, or set oidc_allow_http for a test"
            )
        if not self.oidc_audience and not self.oidc_client_id:
            raise ValueError(
                "oidc_issuer is set without oidc_audience, so that tokens for any other service would do; set "
                "oidc_audience, or oidc_client_id for logins"
            )
        if self.oidc_client_id and "openid" not in self.oidc_login_scopes:
            raise ValueError("oidc_login_scopes has no 'openid', without which an issuer says nobody's name")
        return self

    @model_validator(mode="after")
    def _check_replicas(self) -> Self:
        if self.engine_min_replicas > self.engine_max_replicas:
            raise ValueError(
                f"engine_min_replicas={self.engine_min_replicas} is more than "
                f"engine_max_replicas={self.engine_max_replicas}"
            )
        return self

    @model_validator(mode="after")
    def _check_tensor_parallel(self) -> Self:
        num_gpus = self.engine_tensor_parallel
        if num_gpus > 1 and self.engine is not EngineKind.VLLM:
            raise ValueError(
                f"engine_tensor_parallel={num_gpus} needs engine=vllm, and engine is {self.engine}: sienn_ray's own "
                "engine computes on one GPU; set engine=vllm, or leave engine_tensor_parallel at 1"
            )
        if num_gpus > 1 and self.engine_num_gpus not in (None, num_gpus):
            raise ValueError(
                f"engine_num_gpus={self.engine_num_gpus:g} isn't engine_tensor_parallel={num_gpus}; a replica that is "
                "split reserves a whole GPU for each part, so leave engine_num_gpus out"
            )
        return self

    @model_validator(mode="after")
    def _check_step(self) -> Self:
        """Each request of a batch is to go on by a token at every step."""
        if self.engine_step_tokens is not None and self.engine_step_tokens < self.engine_max_batch:
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
            "database_url": values.get("database_url") or SecretStr(f"sqlite:///{home / 'sienn.db'}"),
        }
        return {**values, **derived}

    @property
    def max_long_requests(self) -> int:
        """Requests that take long, of all kinds, that an ingress replica has open at the most."""
        uploads = self.max_concurrent_uploads + self.max_waiting_uploads
        others = self.max_downloads + self.max_open_answers + self.max_log_followers + self.max_waiting_requests
        return uploads + others + self.max_listeners

    def step_tokens(self, *, on_gpu: bool) -> int:
        """Return the tokens of an engine's step, a token for each of its requests at the least."""
        default = _GPU_STEP_TOKENS if on_gpu else _CPU_STEP_TOKENS
        return self.engine_step_tokens or max(default, self.engine_max_batch)

    @property
    def cpu_kv_cache_bytes(self) -> int:
        """Bytes of the cache of keys and values of an engine without a GPU."""
        return self.engine_kv_cache_bytes or GIB

    @property
    def public_origins(self) -> tuple[str, ...]:
        """The origin of `public_url`, if there is one."""
        scheme, _, rest = self.public_url.partition("://")
        return (f"{scheme}://{rest.partition('/')[0]}",) if rest else ()

    @property
    def token_issuer(self) -> str:
        """The name of this service in its own access tokens; the same for all replicas."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return self.public_url.rstrip("/") or f"http://{host}:{self.port}"

    @property
    def claim_rules(self) -> ClaimRules:
        """Rules by which an outside issuer's claims become scopes."""
        from sienn_ray.access.claim_rules import ClaimRules, named_scope, parsed_scopes

        return ClaimRules(
            scope_claim=self.oidc_scope_claim,
            groups_claim=self.oidc_groups_claim,
            scopes=parsed_scopes(self.oidc_scopes),
            admin_group=self.oidc_admin_group,
            default_scopes=frozenset(map(named_scope, self.oidc_default_scopes)),
        )

    @property
    def limits_of_addresses(self) -> str:
        """Limits on the requests of one address; empty where there are none."""
        if self.rate_limits is None:
            return _DEFAULT_RATE_LIMITS if self.is_auth_on else ""
        return self.rate_limits

    @property
    def answer_limits(self) -> ClaimLimits:
        """Limits on answers of keys that have none of their own, and of owners who come without a key."""
        return ClaimLimits(max_open=self.key_max_open_answers, tokens_per_minute=self.key_tokens_per_minute)

    @property
    def quotas(self) -> Quotas:
        """Bounds on what one owner has, unless an admin has set others for it."""
        return Quotas(
            max_stored_bytes=self.owner_max_stored_bytes,
            max_pending_jobs=self.owner_max_pending_jobs,
            max_running_jobs=self.owner_max_running_jobs,
            max_open_exports=self.owner_max_open_exports,
            max_exports=self.owner_max_exports,
            max_statistics=self._max_statistics,
        )

    @property
    def _max_statistics(self) -> int | None:
        if self.owner_max_statistics is None:
            return _DEFAULT_MAX_STATISTICS if self.is_auth_on else None
        return self.owner_max_statistics

    @property
    def is_auth_on(self) -> bool:
        """Return whether requests need an API key."""
        return self.auth == "on"

    @property
    def admission_rules(self) -> AdmissionRules:
        """Limits on the base models that users may name."""
        return AdmissionRules(self.allowed_base_models, self.max_base_model_bytes)

    @property
    def webhook_rules(self) -> OutboundRules:
        """Limits on the servers that webhooks lead to."""
        return OutboundRules(
            AddressRules.parsed(self.webhook_allowed_networks),
            allows_http=self.webhook_allow_http,
            timeout_s=self.webhook_timeout_s,
            setting=f"{ENV_PREFIX}WEBHOOK_ALLOWED_NETWORKS",
        )

    @property
    def models_dir(self) -> Path:
        """Base models that were converted on this machine."""
        return self.home / "models"

    @property
    def adapters_dir(self) -> Path:
        """Local copies of adapters that an engine has loaded."""
        return self.home / "cache" / "adapters"

    def access_fault(self, host: str | None) -> str | None:
        """Say why the service mustn't start on an address, or None where it may.

        Args:
            host: The address that HTTP is listened on; None where it isn't known.
        """
        if self.auth != "auto" or (host is not None and is_loopback(host)):
            return None
        where = f"on {host}, where other machines may reach it," if host else "on an address that isn't known"
        return (
            f"the service would listen {where} without asking who sends a request; set SIENN_AUTH=on to ask for API "
            "keys, or SIENN_AUTH=off to let whoever reaches it do everything"
        )

    def for_this_machine(self) -> Settings:
        """Return the settings of a service that listens on `host` itself.

        On a loopback address nobody is asked who they are, so a name that isn't this machine's may be a trick.
        """
        if self.allowed_hosts or not is_loopback(self.host):
            return self
        public_names = tuple(filter(None, (urlsplit(origin).hostname for origin in self.public_origins)))
        return self.model_copy(update={"allowed_hosts": (LOCALHOST, *public_names)})

    def without_secrets(self) -> Settings:
        """Return the settings without the database, which only the tracker reaches, and without keys and secrets."""
        secrets = {name: None for name in self.secret_names() if name != "database_url"}
        return self.without_database().model_copy(update=secrets)

    def without_database(self) -> Settings:
        """Return the settings of what answers requests: it knows the admin's key, and reaches no database.

        Nor does it know what encrypts the keys there.
        """
        return self.model_copy(update={"database_url": SecretStr("sqlite://"), "token_key_secret": None})  # nosec B105 # there is none

    @classmethod
    def secret_names(cls) -> tuple[str, ...]:
        """Return the fields that are secrets."""
        return tuple(name for name, field in cls.model_fields.items() if "SecretStr" in str(field.annotation))

    @staticmethod
    def variable(name: str) -> str:
        """Return the environment variable of a field."""
        return f"{ENV_PREFIX}{name}".upper()
