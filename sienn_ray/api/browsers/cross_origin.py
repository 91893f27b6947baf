"""CORS: which web sites' pages may read this service's responses."""

from __future__ import annotations

from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware

from sienn_ray.api.browsers.origins import ANY_ORIGIN
from sienn_ray.settings import Settings

# Where development servers of web front ends listen by default: Create React App and Next.js, and Vite.
DEVELOPMENT_PORTS = (3000, 3001, 3002, 5173)
_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
# Beside those that every page may read.
_RESPONSE_HEADERS = (
    "Accept-Ranges",
    "Content-Disposition",
    "Content-Range",
    "ETag",
    "Idempotent-Replayed",
    "Location",
    "RateLimit",
    "RateLimit-Policy",
    "Retry-After",
    "X-Request-ID",
)
_PREFLIGHT_LIFETIME_S = 600


def allowed_origins(settings: Settings) -> tuple[str, ...]:
    """Return the origins of web sites whose pages may use the service, the service's own public one included."""
    local = tuple(f"http://{host}:{port}" for host in ("localhost", "127.0.0.1") for port in DEVELOPMENT_PORTS)
    return (*settings.cors_origins, *(local if settings.cors_development else ()), *settings.public_origins)


def cross_origin_headers(settings: Settings) -> list[Middleware]:
    """Return the middleware that lets pages of other web sites in; it has to be the outermost, for errors too."""
    origins = allowed_origins(settings)
    if not origins:
        return []
    return [
        Middleware(
            CORSMiddleware,
            allow_origins=origins,
            allow_methods=_METHODS,
            allow_headers=("*",),  # clients of the OpenAI API send a dozen of their own
            expose_headers=_RESPONSE_HEADERS,
            # A site that may be anybody must not act with its visitors' cookies.
            allow_credentials=ANY_ORIGIN not in origins,
            allow_private_network=True,
            max_age=_PREFLIGHT_LIFETIME_S,
        )
    ]
