"""The FastAPI application."""

from __future__ import annotations

from fastapi import FastAPI

from sienn_ray import __version__
from sienn_ray.api.deps import Backends
from sienn_ray.api.errors import add_error_handlers
from sienn_ray.api.routes import datasets, export, health, inference, jobs, models


def create_app(backends: Backends) -> FastAPI:
    """The application over the given backends."""
    app = FastAPI(
        title="sienn_ray",
        version=__version__,
        description="LoRA fine-tuning of language models as a service, on Ray.",
    )
    app.state.backends = backends
    add_error_handlers(app)
    for module in (health, datasets, jobs, inference, export, models):
        app.include_router(module.router)
    return app
