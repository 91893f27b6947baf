"""The FastAPI application."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import APIRouter, FastAPI
from starlette.middleware import Middleware
from starlette.routing import BaseRoute

from sienn_ray import __version__
from sienn_ray.api.deps import Backends
from sienn_ray.api.exports.links import ExportLinks
from sienn_ray.api.http.body_limits import BodyLimits
from sienn_ray.api.http.errors import add_error_handlers, internal_error
from sienn_ray.api.http.request_id import RequestIds
from sienn_ray.api.http.request_metrics import RequestMetrics
from sienn_ray.api.http.uploads import Uploads
from sienn_ray.api.http.websockets import WebSocketErrors
from sienn_ray.api.lists.shared_statistics import SharedStatistics
from sienn_ray.api.monitoring.monitoring import Monitoring
from sienn_ray.api.openapi.document import DESCRIPTION, TAGS, DocumentedApi, operation_id
from sienn_ray.api.openapi.pages import add_docs
from sienn_ray.api.routes import (
    chat,
    completions,
    dataset_statistics,
    datasets,
    downloads,
    export,
    export_formats,
    finetuning,
    health,
    inference,
    job_history,
    job_logs,
    jobs,
    metrics,
    models,
    openai_models,
    uploads,
)

_ROUTES = (
    health,
    metrics,
    uploads,
    datasets,
    dataset_statistics,
    finetuning,
    jobs,
    job_history,
    job_logs,
    inference,
    export_formats,
    export,
    downloads,
    models,
    openai_models,
    chat,
    completions,
)
# A dataset file is taken from its multipart body while it arrives, up to SIENN_MAX_UPLOAD_BYTES.
_UPLOADS = ("/api/upload-dataset", "/api/validate-dataset")


def create_app(backends: Backends, *, numbered_by_server: bool = False) -> FastAPI:
    """The application over the given backends.

    Args:
        backends: Everything behind it.
        numbered_by_server: Whether the server gives requests their ids; see `RequestIds`.
    """
    app = DocumentedApi(
        title="sienn_ray",
        version=__version__,
        description=DESCRIPTION,
        contact={"name": "The sienn_ray contributors"},
        license_info={"name": "Apache License 2.0", "identifier": "Apache-2.0"},
        openapi_tags=TAGS,
        docs_url=None,
        redoc_url=None,
        generate_unique_id_function=operation_id,
        middleware=_middleware(backends, numbered_by_server),
        lifespan=_lifespan,
    )
    app.state.backends = backends
    app.state.monitoring = Monitoring.of(backends)
    app.state.uploads = Uploads(backends.settings)
    app.state.export_links = ExportLinks(backends)
    app.state.statistics = SharedStatistics(
        backends.statistics, backends.storage, backends.settings.statistics_timeout_s
    )
    add_error_handlers(app)
    add_docs(app)
    app.router.routes.extend(_routes())
    return app


@functools.cache
def _routes() -> list[BaseRoute]:
    """All routes, which know nothing of an application, and take far longer to make than one."""
    router = APIRouter()
    for module in _ROUTES:
        router.include_router(module.router, generate_unique_id_function=operation_id)
    return router.routes


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with app.state.monitoring.flusher.running():
        yield


def _middleware(backends: Backends, numbered_by_server: bool) -> list[Middleware]:
    """From the outermost to the innermost."""
    return [
        Middleware(RequestIds, on_error=internal_error, numbered_by_server=numbered_by_server),
        Middleware(RequestMetrics, meter=backends.recorder),
        Middleware(WebSocketErrors),
        Middleware(BodyLimits, max_bytes=backends.settings.max_body_bytes, exempt=_UPLOADS),
    ]
