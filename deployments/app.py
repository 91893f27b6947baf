"""The composition root: `serve deploy serveconfig.yaml` and `sienn serve` both build the service here.

Annotations are not postponed here: Serve looks at the type of `build`'s argument to parse what the file gives.
"""

from pydantic import Field, field_validator
from ray import serve
from ray.serve import Application

from deployments.engine import build_engine
from deployments.ingress import Ingress
from sienn_ray import catalog
from sienn_ray.errors import InvalidBaseModelError
from sienn_ray.settings import Settings

# One replica hands many requests to others and waits; these are open requests, not threads.
_MAX_ONGOING_REQUESTS = 1000


class EngineSettings(Settings):
    """Arguments of an engine that `serveconfig.yaml` lists."""

    base_model: str = Field(description="Hub id.")

    @field_validator("base_model")
    @classmethod
    def _check_id(cls, base_model: str) -> str:
        try:
            catalog.check_id(base_model)
        except InvalidBaseModelError as error:
            raise ValueError(error.message) from error
        return base_model


def build(args: Settings) -> Application:
    """The application.

    Args:
        args: The fields of `Settings`; those that `serveconfig.yaml` leaves out come from the environment.
    """
    deployment = serve.deployment(
        Ingress,
        name="Ingress",
        max_ongoing_requests=_MAX_ONGOING_REQUESTS,
        ray_actor_options={"num_cpus": 0},
    )
    return deployment.bind(args)


def build_listed_engine(args: EngineSettings) -> Application:
    """An engine that runs before the first request. Its application has to have the name that requests look up.

    Args:
        args: The base model, and fields of `Settings` as for `build`.
    """
    return build_engine(args.base_model, Settings.model_validate(args.model_dump(exclude={"base_model"})))
