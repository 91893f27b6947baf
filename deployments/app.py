"""The composition root: `serve deploy serveconfig.yaml` and `sienn serve` both build the service here.

Annotations are not postponed here: Serve looks at the type of `build`'s argument to parse what the file gives.
"""

import logging
import time

from pydantic import Field, field_validator
from ray import serve
from ray.serve import Application

from deployments.engine import REPLICA_HEALTH_CHECK_PERIOD_S, build_engine
from deployments.engine_choice import with_kind
from deployments.engine_memory import engine_memory_bytes
from deployments.engine_versions import EngineVersion, digest_of
from deployments.exposed_secrets import check_no_exposed_secrets
from deployments.ingress import Ingress
from deployments.ray_ports import check_ray_is_guarded
from sienn_ray import catalog
from sienn_ray.errors import InvalidBaseModelError, SiennError
from sienn_ray.inference.applications import EngineKey
from sienn_ray.settings import Settings

logger = logging.getLogger(__name__)

# One replica hands many requests to others and waits; these are open requests, not threads. Those that take long have
# limits of their own, so these places are always left to short ones, such as health checks.
_MAX_SHORT_REQUESTS = 200


class EngineSettings(Settings):
    """Arguments of an engine that `serveconfig.yaml` lists."""

    base_model: str = Field(description="Hub id.")
    revision: str | None = Field(None, description="Branch, tag or commit; by default the main branch.")

    @field_validator("base_model")
    @classmethod
    def _check_id(cls, base_model: str) -> str:
        try:
            catalog.check_id(base_model)
        except InvalidBaseModelError as error:
            raise ValueError(error.message) from error
        return base_model


def build(args: Settings) -> Application:
    """The application, as `serveconfig.yaml` names it.

    Args:
        args: The fields of `Settings`; those that `serveconfig.yaml` leaves out come from the environment.

    Raises:
        ExposedSecretError: A secret is where Ray shows it.
        UnguardedRayError: Ray's ports ask nobody for anything.
    """
    check_no_exposed_secrets(args)
    check_ray_is_guarded(args)
    return application_of(args)


def application_of(args: Settings) -> Application:
    """The application of settings that Ray hasn't been shown."""
    deployment = serve.deployment(
        Ingress,
        name="Ingress",
        num_replicas=args.ingress_replicas,
        max_ongoing_requests=args.max_long_requests + _MAX_SHORT_REQUESTS,
        health_check_period_s=REPLICA_HEALTH_CHECK_PERIOD_S,
        ray_actor_options={"num_cpus": 0},
    )
    return deployment.bind(args, _now_ms())


def build_listed_engine(args: EngineSettings) -> Application:
    """An engine that runs before the first request. Its application has to have the name that requests look up.

    Args:
        args: The base model, and fields of `Settings` as for `build`.

    Raises:
        ExposedSecretError: A secret is where Ray shows it.
        UnguardedRayError: Ray's ports ask nobody for anything.
    """
    check_no_exposed_secrets(args)
    check_ray_is_guarded(args)
    settings = Settings.model_validate(args.model_dump(exclude={"base_model", "revision"}))
    key = EngineKey(args.base_model, _commit(args))
    version = EngineVersion(digest_of(settings), _now_ms(), is_listed=True, revision=key.revision)
    settings = with_kind(key, settings.without_secrets())
    memory_bytes = engine_memory_bytes(key, settings)
    return build_engine(key.base_model, settings, key.revision, version=version, memory_bytes=memory_bytes)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _commit(args: EngineSettings) -> str | None:
    """The commit that all replicas of a listed engine load; what the arguments say where it can't be looked up now."""
    try:
        return catalog.resolve(args.base_model, args.hub_timeout_s, args.revision, args.admission_rules).revision
    except SiennError as error:
        logger.warning("the commit of %s isn't known now: %s", args.base_model, error.message)
        return args.revision
