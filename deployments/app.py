"""The composition root: `serve deploy serveconfig.yaml` and `sienn serve` both build the service here.

Annotations are not postponed here: Serve looks at the type of `build`'s argument to parse what the file gives.
"""

from ray import serve
from ray.serve import Application

from deployments.ingress import Ingress
from sienn_ray.settings import Settings

# One replica hands many requests to others and waits; these are open requests, not threads.
_MAX_ONGOING_REQUESTS = 1000


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
