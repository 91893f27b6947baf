"""An issuer of OpenID Connect on this machine: discovery, keys that rotate, tokens, and logins of browsers."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, parse_qsl, unquote_plus, urlsplit

from joserfc import jwt
from joserfc.errors import SecurityWarning
from joserfc.jwk import ECKey, RSAKey

AUDIENCE = "https://sienn.example.org"
CLIENT_ID, CLIENT_SECRET = "sienn", "the secret of sienn & co"


@dataclass
class FakeIssuer:
    """An issuer, and hands to do what it shouldn't.

    Attributes:
        url: Its name.
        keys: Its public keys, by their ids.
        num_requests: Requests by path.
        discovery: Changes of its discovery document.
        jwks: The document of its keys in place of the true one.
        answers: Statuses by path in place of the true answers.
        codes: What a login's code stands for.
        forms: Forms that came for tokens, with the names of those who sent them.
        id_claims: Changes of the claims of ID tokens.
    """

    url: str = ""
    keys: dict[str, ECKey] = field(default_factory=dict)
    num_requests: Counter[str] = field(default_factory=Counter)
    discovery: dict[str, Any] = field(default_factory=dict)
    jwks: Any = None
    answers: dict[str, int] = field(default_factory=dict)
    codes: dict[str, dict[str, str]] = field(default_factory=dict)
    forms: list[dict[str, str]] = field(default_factory=list)
    id_claims: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.rotate("key-1")

    def rotate(self, kid: str, *, keeps: bool = False) -> None:
        """Take another key."""
        key = ECKey.generate_key("P-256", {"kid": kid, "alg": "ES256", "use": "sig"})
        self.keys = {**(self.keys if keeps else {}), kid: key}

    def claims(self, **changes: Any) -> dict[str, Any]:
        """Claims of an access token that is valid; None leaves one out."""
        now = int(time.time())
        claims = {"iss": self.url, "sub": "ada", "aud": AUDIENCE, "iat": now, "exp": now + 600, "scope": "read"}
        return {name: value for name, value in {**claims, **changes}.items() if value is not None}

    def token(self, header: dict[str, Any] | None = None, key: Any = None, **changes: Any) -> str:
        """Return a token; see `claims`. `header` changes the header, `key` signs in place of the newest."""
        kid = list(self.keys)[-1]
        full = {"alg": "ES256", "kid": kid, **(header or {})}
        registry_free = {name: value for name, value in full.items() if value is not None}
        return jwt.encode(registry_free, self.claims(**changes), key or self.keys[kid], algorithms=[full["alg"]])

    def log_in(self, authorization_url: str, subject: str = "ada") -> str:
        """Do what a browser and its user do at the issuer; gives the URL that leads back."""
        query = dict(parse_qsl(urlsplit(authorization_url).query))
        assert query["response_type"] == "code"
        assert query["code_challenge_method"] == "S256"
        code = f"code-{len(self.codes)}"
        self.codes[code] = {**query, "sub": subject}
        return f"{query['redirect_uri']}?code={code}&state={query['state']}&session_state=x&iss={self.url}"

    def exchange(self, form: dict[str, str]) -> tuple[int, dict[str, Any]]:
        """Answer a request for tokens."""
        login = self.codes.pop(form.get("code", ""), None)
        if (form.get("client_id"), form.get("client_secret")) not in {(CLIENT_ID, CLIENT_SECRET), (CLIENT_ID, None)}:
            return 401, {"error": "invalid_client"}
        challenge = (
            base64.urlsafe_b64encode(hashlib.sha256(form["code_verifier"].encode()).digest()).decode().strip("=")
        )
        if login is None or login["redirect_uri"] != form["redirect_uri"] or login["code_challenge"] != challenge:
            return 400, {"error": "invalid_grant"}
        claims = {"aud": CLIENT_ID, "nonce": login["nonce"], "sub": login["sub"], "scope": None, **self.id_claims}
        return 200, {"access_token": "opaque", "token_type": "Bearer", "id_token": self.token(**claims)}

    def document(self, path: str) -> Any:
        """Return the document at a path, if there is one."""
        if path == "/.well-known/openid-configuration":
            return {
                "issuer": self.url,
                "jwks_uri": f"{self.url}/keys",
                "authorization_endpoint": f"{self.url}/authorize?tenant=1",
                "token_endpoint": f"{self.url}/token",
                "end_session_endpoint": f"{self.url}/logout",
                **self.discovery,
            }
        if path == "/keys":
            return self.jwks or {"keys": [key.as_dict(private=False) for key in self.keys.values()]}
        return None


@contextmanager
def fake_issuer() -> Iterator[FakeIssuer]:
    """Run an issuer while the block does."""
    issuer = FakeIssuer()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = urlsplit(self.path).path
            issuer.num_requests[path] += 1
            document = issuer.document(path)
            if path == "/redirect":
                self.send_response(302)
                self.send_header("Location", f"{issuer.url}/keys")
                self.end_headers()
            else:
                self._answer(issuer.answers.get(path, 200 if document else 404), document)

        def do_POST(self) -> None:
            issuer.num_requests[self.path] += 1
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            form = {name: values[0] for name, values in parse_qs(body).items()}
            scheme, _, encoded = self.headers.get("Authorization", "").partition(" ")
            if scheme == "Basic":
                name, _, secret = base64.b64decode(encoded).decode().partition(":")
                form |= {"client_id": unquote_plus(name), "client_secret": unquote_plus(secret), "by": "basic"}
            issuer.forms.append(form)
            self._answer(*issuer.exchange(form))

        def _answer(self, status: int, document: Any) -> None:
            content = document if isinstance(document, bytes) else json.dumps(document).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    issuer.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield issuer
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def rsa_key(kid: str = "rsa-1", num_bits: int = 2048) -> RSAKey:
    """Return another kind of key."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SecurityWarning)  # of a weak one
        return RSAKey.generate_key(num_bits, {"kid": kid, "use": "sig"})
