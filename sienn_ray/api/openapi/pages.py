"""The interactive documentation at /docs and /redoc, without a byte from elsewhere.

The assets come from the package `fastapi-offline`, and the pages name them relative to themselves, so that they work
behind a prefix too. A content security policy keeps the browser from asking any other server.
"""

from __future__ import annotations

import base64
import hashlib
from typing import Any

from fastapi import FastAPI
from fastapi.responses import HTMLResponse
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Mount
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

_ASSETS_PATH = "/static/docs"
_ASSETS_MAX_AGE_S = 24 * 60 * 60

_SWAGGER_SCRIPT = """
window.ui = SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#swagger-ui",
  deepLinking: true,
  displayOperationId: true,
  displayRequestDuration: true,
  tryItOutEnabled: true,
  validatorUrl: null,
});
"""
_SWAGGER_PAGE = f"""\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>sienn_ray: REST API</title>
<link rel="icon" href="static/docs/favicon.png">
<link rel="stylesheet" href="static/docs/swagger-ui.css">
</head>
<body>
<div id="swagger-ui"></div>
<script src="static/docs/swagger-ui-bundle.js"></script>
<script>{_SWAGGER_SCRIPT}</script>
</body>
</html>
"""
# Redoc shows its maker's logo from its maker's server, which the policy forbids.
_REDOC_PAGE = """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>sienn_ray: REST API</title>
<link rel="icon" href="static/docs/favicon.png">
<style>body { margin: 0; } a[href*="redocly.com"] img { display: none; }</style>
</head>
<body>
<redoc spec-url="openapi.json"></redoc>
<script src="static/docs/redoc.standalone.js"></script>
</body>
</html>
"""


def _policy() -> str:
    script_hash = base64.b64encode(hashlib.sha256(_SWAGGER_SCRIPT.encode()).digest()).decode()
    return "; ".join(
        [
            "default-src 'none'",
            "connect-src 'self'",
            "font-src 'self' data:",
            "img-src 'self' data:",
            f"script-src 'self' 'sha256-{script_hash}'",
            "style-src 'self' 'unsafe-inline'",  # both pages make their styles while they run
            "worker-src 'self' blob:",  # Redoc's search
            "base-uri 'none'",
            "form-action 'self'",
            "frame-ancestors 'self'",
        ]
    )


def add_docs(app: FastAPI) -> None:
    """Add both pages and what they load."""
    headers = {"Content-Security-Policy": _policy(), "Referrer-Policy": "no-referrer", "Cache-Control": "no-cache"}

    @app.get("/docs", include_in_schema=False)
    async def swagger() -> HTMLResponse:
        return HTMLResponse(_SWAGGER_PAGE, headers=headers)

    @app.get("/redoc", include_in_schema=False)
    async def redoc() -> HTMLResponse:
        return HTMLResponse(_REDOC_PAGE, headers=headers)

    app.router.routes.append(Mount(_ASSETS_PATH, _Assets(packages=[("fastapi_offline", "static")]), name="docs-assets"))


class _Assets(StaticFiles):
    """Files that a browser may keep, and that know which methods they answer."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        if scope["method"] not in {"GET", "HEAD"}:
            raise HTTPException(status_code=405, headers={"Allow": "GET, HEAD"})
        return await super().get_response(path, scope)

    def file_response(self, *args: Any, **options: Any) -> Response:
        response = super().file_response(*args, **options)
        response.headers["Cache-Control"] = f"public, max-age={_ASSETS_MAX_AGE_S}"
        return response
