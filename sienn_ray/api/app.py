"""The FastAPI application."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from fastapi import APIRouter, Depends, FastAPI
from starlette.middleware import Middleware
from starlette.routing import BaseRoute
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from sienn_ray import __version__
from sienn_ray.api.access.claim_gate import ClaimGate
from sienn_ray.api.access.credentials import Credentials
from sienn_ray.api.access.make_credentials import make_credentials
from sienn_ray.api.access.rate_gate import RateGate
from sienn_ray.api.audit.audit_trails import AuditTrails
from sienn_ray.api.audit.recorder import AuditRecorder
from sienn_ray.api.browsers.cross_origin import allowed_origins, cross_origin_headers
from sienn_ray.api.browsers.hosts import AllowedHosts
from sienn_ray.api.browsers.origins import OriginChecks
from sienn_ray.api.browsers.security_headers import SecurityHeaders
from sienn_ray.api.deps import Backends
from sienn_ray.api.exports.links import ExportLinks
from sienn_ray.api.http.answer_limits import AnswerLimits
from sienn_ray.api.http.authentication import Authentication, AuthenticationRequired
from sienn_ray.api.http.body_limits import BodyLimits
from sienn_ray.api.http.errors import add_error_handlers, internal_error
from sienn_ray.api.http.known_names import refuse_unknown_parameters
from sienn_ray.api.http.places import Places, PlacesGivenBack
from sienn_ray.api.http.rate_limits import RateLimits
from sienn_ray.api.http.request_id import RequestIds
from sienn_ray.api.http.request_metrics import RequestMetrics
from sienn_ray.api.http.transfer_rates import TransferRates
from sienn_ray.api.http.uploads import Uploads
from sienn_ray.api.http.usage import UsageCounting
from sienn_ray.api.http.websockets import WebSocketErrors
from sienn_ray.api.lists.bounded_renderings import BoundedRenderings
from sienn_ray.api.lists.shared_statistics import SharedStatistics
from sienn_ray.api.live.hub import LiveHub
from sienn_ray.api.live.shared_numbers import SharedNumbers
from sienn_ray.api.monitoring.monitoring import Monitoring
from sienn_ray.api.openapi.document import DESCRIPTION, TAGS, DocumentedApi, operation_id
from sienn_ray.api.openapi.pages import add_docs
from sienn_ray.api.openapi.security import scopes_by_operation
from sienn_ray.api.registrations import Registrations
from sienn_ray.api.routes import (
    api_keys,
    audit_log,
    chat,
    completions,
    dataset_imports,
    dataset_statistics,
    dataset_versions,
    datasets,
    demo,
    downloads,
    export,
    export_formats,
    finetuning,
    health,
    inference,
    job_history,
    job_logs,
    jobs,
    limits,
    live,
    metrics,
    models,
    openai_models,
    rendered_rows,
    sessions,
    tokens,
    uploads,
    usage,
    webhooks,
)

_ROUTES = (
    health,
    metrics,
    api_keys,
    tokens,
    sessions,
    audit_log,
    limits,
    usage,
    uploads,
    dataset_imports,
    datasets,
    dataset_versions,
    dataset_statistics,
    rendered_rows,
    finetuning,
    jobs,
    job_history,
    job_logs,
    live,
    inference,
    demo,
    export_formats,
    export,
    downloads,
    webhooks,
    models,
    openai_models,
    chat,
    completions,
)
# A dataset file is taken from its multipart body while it arrives, up to SIENN_MAX_UPLOAD_BYTES.
_UPLOADS = ("/api/upload-dataset", "/api/validate-dataset", "/api/datasets/[^/]+/versions")


def create_app(backends: Backends, *, numbered_by_server: bool = False) -> FastAPI:
    """The application over the given backends.

    Args:
        backends: Everything behind it.
        numbered_by_server: Whether the server gives requests their ids; see `RequestIds`.
    """
    gate, claims = RateGate(backends.tracker), ClaimGate(backends.tracker)
    credentials = make_credentials(backends.tracker, backends.settings, allowed_origins(backends.settings))
    audit = AuditRecorder(backends.tracker.add_audit_reports)
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
        middleware=_middleware(backends, numbered_by_server, gate, claims, credentials, audit),
        lifespan=_lifespan,
    )
    app.is_auth_on = backends.settings.is_auth_on
    app.settings = backends.settings
    app.scopes = scopes_by_operation(route for module in _ROUTES for route in module.router.routes)
    app.state.backends = backends
    app.state.rate_gate = gate
    app.state.credentials = credentials
    app.state.live_hub = LiveHub(backends)
    app.state.shared_numbers = SharedNumbers()
    app.state.audit = audit
    app.state.claim_gate = claims
    app.state.monitoring = Monitoring.of(backends)
    app.state.places = Places(backends.settings)
    app.state.uploads = uploads = Uploads(backends.settings)
    app.state.registrations = Registrations(backends.tracker, backends.storage, uploads.forget)
    app.state.export_links = ExportLinks(backends)
    app.state.statistics = SharedStatistics(
        backends.statistics, backends.storage, backends.settings.statistics_timeout_s
    )
    app.state.renderings = BoundedRenderings(backends.renderings, backends.settings.statistics_timeout_s)
    add_error_handlers(app)
    add_docs(app)
    app.router.routes.extend(_routes())
    return app


@functools.cache
def _routes() -> list[BaseRoute]:
    """All routes, which know nothing of an application, and take far longer to make than one."""
    router = APIRouter(dependencies=[Depends(refuse_unknown_parameters)])
    for module in _ROUTES:
        router.include_router(module.router, generate_unique_id_function=operation_id)
    return router.routes


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    monitoring: Monitoring = app.state.monitoring
    async with AsyncExitStack() as stack:
        for each in (
            monitoring.flusher, monitoring.usage_flusher, app.state.rate_gate, app.state.claim_gate, app.state.audit,
        ):  # fmt: skip
            await stack.enter_async_context(each.running())
        yield


def _middleware(
    backends: Backends,
    numbered_by_server: bool,
    gate: RateGate,
    claims: ClaimGate,
    credentials: Credentials,
    audit: AuditRecorder,
) -> list[Middleware]:
    """From the outermost to the innermost."""
    settings = backends.settings
    proxies = [Middleware(ProxyHeadersMiddleware, trusted_hosts=list(settings.trusted_proxies))]
    return [
        *(proxies if settings.trusted_proxies else []),
        *cross_origin_headers(settings),
        Middleware(SecurityHeaders, is_https=settings.public_url.startswith("https:")),
        Middleware(RequestIds, on_error=internal_error, numbered_by_server=numbered_by_server),
        Middleware(RequestMetrics, meter=backends.recorder),
        Middleware(AuditTrails, recorder=audit),
        Middleware(WebSocketErrors),
        Middleware(AllowedHosts, names=settings.allowed_hosts),
        Middleware(OriginChecks, origins=allowed_origins(settings)),
        Middleware(Authentication, credentials=credentials, is_required=settings.is_auth_on),
        Middleware(RateLimits, gate=gate, limits=settings.limits_of_addresses),
        Middleware(AuthenticationRequired),
        Middleware(UsageCounting, usage=backends.usage),
        Middleware(AnswerLimits, gate=claims, defaults=settings.answer_limits),
        Middleware(PlacesGivenBack),
        Middleware(
            TransferRates, min_bytes_per_s=settings.transfer_min_bytes_per_s, window_s=settings.transfer_window_s
        ),
        Middleware(BodyLimits, max_bytes=settings.max_body_bytes, exempt=_UPLOADS),
    ]
