"""Requests over real sockets: to the address that was checked, and within their time."""

from __future__ import annotations

import asyncio
import datetime
import socket
import ssl
from concurrent.futures import Future, ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from sienn_ray.errors import DestinationError, OutOfReachError
from sienn_ray.outbound.addresses import Address, AddressRules
from sienn_ray.outbound.client import OutboundClient
from sienn_ray.outbound.resolver import UnansweredLookupError
from sienn_ray.outbound.rules import OutboundRules
from sienn_ray.outbound.urls import OutboundUrl
from tests.support.receiver import FakeResolver, Receiver, receiving

LOOPBACK = AddressRules.parsed(["127.0.0.1"])
SETTING = "SIENN_WEBHOOK_ALLOWED_NETWORKS"


def client(resolver: FakeResolver | None = None, **rules: Any) -> OutboundClient:
    chosen = {"addresses": LOOPBACK, "allows_http": True, "setting": SETTING, **rules}
    return OutboundClient(OutboundRules(**chosen), resolver or FakeResolver())


def checked(asked: OutboundClient, url: str) -> OutboundUrl:
    return asyncio.run(asked.checked(url, "ada"))


def url_of(receiver: Receiver, host: str) -> str:
    return receiver.url.replace("127.0.0.1", host)


def test_a_post_and_its_answer() -> None:
    with receiving(statuses=[201], headers={"X-Answer": "yes"}) as receiver:
        response = client().post(receiver.url, b'{"a": 1}', {"Content-Type": "application/json"}, "ada")
    assert (response.status, response.body, response.headers["x-answer"]) == (201, b"thank you", "yes")
    (received,) = receiver.requests
    assert (received.path, received.body) == ("/hook", b'{"a": 1}')
    assert received.headers["host"] == f"127.0.0.1:{receiver.port}"
    assert received.headers["content-type"] == "application/json"
    assert received.headers["user-agent"].startswith("sienn_ray/")


def test_a_name_is_connected_at_its_address_and_named_in_the_request() -> None:
    resolver = FakeResolver(hooks_example=[["127.0.0.1"]])
    with receiving() as receiver:
        assert client(resolver).post(url_of(receiver, "hooks.example"), b"", {}, "ada").status == 200
    assert receiver.requests[0].headers["host"] == f"hooks.example:{receiver.port}"
    assert resolver.asked == ["hooks.example"]


@pytest.mark.parametrize(
    "addresses", [["10.0.0.1"], ["1.1.1.1", "10.0.0.1"], ["::1"], ["169.254.169.254"], ["::ffff:10.0.0.1"], []]
)
def test_a_name_that_means_something_within_is_refused(addresses: list[str]) -> None:
    resolver = FakeResolver(inside_example=[addresses])
    for ask in (lambda url: checked(client(resolver), url), lambda url: client(resolver).post(url, b"", {}, "ada")):
        with pytest.raises(
            DestinationError, match=f"^inside.example has no address, or one that isn't public; {SETTING}"
        ):
            ask("https://inside.example/")


class Undecided:
    """Names of which nobody says anything, or that they can't be looked up at the moment."""

    def __init__(self, error: OSError | None = None) -> None:
        self.error = error
        self.begun: list[Future[tuple[Address, ...]]] = []

    def begin(self, *_: Any) -> Future[tuple[Address, ...]]:
        self.begun.append(Future())
        if self.error is not None:
            self.begun[-1].set_exception(self.error)
        return self.begun[-1]


@pytest.mark.parametrize("error", [None, UnansweredLookupError("Temporary failure in name resolution")])
def test_a_name_of_which_nobody_says_anything_is_not_refused_for_good(error: OSError | None) -> None:
    resolver: Any = Undecided(error)
    with pytest.raises(OutOfReachError, match=r"^nobody could say within 0.01 s what slow.example means; try again"):
        checked(client(resolver, timeout_s=0.01), "https://slow.example/")
    with pytest.raises(OutOfReachError, match=r"^no answer from slow.example"):
        client(resolver, timeout_s=0.01).post("https://slow.example/", b"", {}, "ada")
    # Nobody waits any more, so none of them has to be begun.
    assert all(each.cancelled() == (error is None) for each in resolver.begun)


def test_a_check_holds_no_thread() -> None:
    """Those of the event loop's own executor are for everything else that blocks."""

    class Refusing(ThreadPoolExecutor):
        def submit(self, *_: Any, **__: Any) -> Any:
            raise AssertionError("a thread was taken")

    async def ask() -> OutboundUrl:
        asyncio.get_running_loop().set_default_executor(Refusing())
        return await client(FakeResolver(hooks_example=[["127.0.0.1"]])).checked("https://hooks.example/", "ada")

    assert asyncio.run(ask()).host == "hooks.example"


def test_nobody_learns_which_names_there_are_within() -> None:
    messages = []
    for resolver in (FakeResolver(some_name=[["10.0.0.1"]]), FakeResolver()):
        with pytest.raises(DestinationError) as raised:
            checked(client(resolver), "https://some.name/")
        messages.append(raised.value.message)
    assert messages[0] == messages[1]


@pytest.mark.parametrize("url", ["https://10.0.0.1/", "https://[::1]/", "https://169.254.169.254/latest/meta-data"])
def test_an_address_within_is_refused(url: str) -> None:
    with pytest.raises(DestinationError, match="is no public address"):
        checked(client(), url)
    with pytest.raises(DestinationError, match="is no public address"):
        client().post(url, b"", {}, "ada")


def test_a_name_that_means_something_else_later_leads_nowhere_else() -> None:
    """DNS rebinding: each request looks a name up once, and connects what was checked."""
    resolver = FakeResolver(evil_example=[["127.0.0.1"], ["127.0.0.1"], ["127.0.0.2"]])
    with receiving() as receiver:
        url = url_of(receiver, "evil.example")
        checked(client(resolver), url)
        assert client(resolver).post(url, b"", {}, "ada").status == 200
        with pytest.raises(DestinationError):
            client(resolver).post(url, b"", {}, "ada")
    assert len(resolver.asked) == 3
    assert len(receiver.requests) == 1


def test_no_redirect_is_followed() -> None:
    with receiving() as inside, receiving(statuses=[307], headers={"Location": inside.url}) as receiver:
        assert client().post(receiver.url, b"", {}, "ada").status == 307
    assert inside.requests == []


def test_no_proxy_of_the_environment_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    with receiving() as proxy, receiving() as receiver:
        for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
        assert client().post(receiver.url, b"", {}, "ada").status == 200
    assert proxy.requests == []


def test_of_a_huge_answer_the_beginning_is_read() -> None:
    sent = 0

    def endless(handler: BaseHTTPRequestHandler) -> None:
        nonlocal sent
        handler.send_response(200)
        handler.end_headers()
        while True:
            sent += handler.wfile.write(b"x" * 65536)

    with receiving(act=endless) as receiver:
        response = client(max_response_bytes=1000).post(receiver.url, b"", {}, "ada")
        receiver.next()  # it was let go
    assert response.body == b"x" * 1000
    assert sent < 64 * 1024 * 1024


def test_nothing_is_decompressed() -> None:
    with receiving(headers={"Content-Encoding": "gzip"}, body=b"\x1f\x8b not at all") as receiver:
        assert client().post(receiver.url, b"", {}, "ada").body == b"\x1f\x8b not at all"


def drip(receiver: list[Receiver], piece: bytes) -> Any:
    def act(handler: BaseHTTPRequestHandler) -> None:
        while not receiver[0].is_over.wait(0.01):
            handler.wfile.write(piece)

    return act


@pytest.mark.parametrize(
    "piece", [b"", b"X: y\r\n", b"HTTP/1.1 100 Continue\r\n\r\n"], ids=["silent", "drips", "interim"]
)
def test_a_server_that_hangs_is_given_up(piece: bytes) -> None:
    here: list[Receiver] = []
    with receiving(act=drip(here, piece)) as receiver:
        here.append(receiver)
        with pytest.raises(OutOfReachError, match=r"no answer from .* within 0.2 s|RemoteProtocolError"):
            client(timeout_s=0.2).post(receiver.url, b"", {}, "ada")


def test_an_answer_that_breaks_off_is_one() -> None:
    def break_off(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(204 + 1)
        handler.send_header("Content-Length", "1000")
        handler.end_headers()
        handler.wfile.write(b"begun")

    with receiving(act=break_off) as receiver:
        response = client().post(receiver.url, b"", {}, "ada")
    assert (response.status, response.body) == (205, b"begun")


def test_what_is_no_http_is_no_answer() -> None:
    def greet(handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(b"SSH-2.0-OpenSSH_9\r\n\r\n")

    with receiving(act=greet) as receiver, pytest.raises(OutOfReachError, match="RemoteProtocolError"):
        client().post(receiver.url, b"", {}, "ada")


def test_nobody_listens() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        with pytest.raises(OutOfReachError, match="ConnectionRefusedError"):
            client().post(f"http://127.0.0.1:{taken.getsockname()[1]}/", b"", {}, "ada")


def test_the_next_address_is_tried() -> None:
    rules = {"addresses": AddressRules.parsed(["127.0.0.0/8"])}
    with receiving() as receiver:  # it listens on one address only
        resolver = FakeResolver(two_example=[["127.9.9.9", "127.0.0.1"]])
        assert client(resolver, **rules).post(url_of(receiver, "two.example"), b"", {}, "ada").status == 200


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Key and certificate of `hooks.example`, signed by itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "hooks.example")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("hooks.example")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("certificate") / "both.pem"
    pem = serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path.write_bytes(private + made.public_bytes(pem))
    return path


def test_tls_is_for_the_name_and_not_for_the_address(certificate: Path) -> None:
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving.load_cert_chain(certificate)
    names: list[str] = []
    serving.sni_callback = lambda _socket, name, _context: names.append(name)
    resolver = FakeResolver(hooks_example=[["127.0.0.1"]], other_example=[["127.0.0.1"]])
    rules = OutboundRules(LOOPBACK, timeout_s=5.0)
    trusting = OutboundClient(rules, resolver, ssl.create_default_context(cafile=str(certificate)))
    with receiving(serving) as receiver:
        assert trusting.post(f"https://hooks.example:{receiver.port}/", b"x", {}, "ada").status == 200
        assert names == ["hooks.example"]
        for host, asked in (("other.example", trusting), ("hooks.example", OutboundClient(rules, resolver))):
            with pytest.raises(OutOfReachError, match="CERTIFICATE_VERIFY_FAILED"):
                asked.post(f"https://{host}:{receiver.port}/", b"x", {}, "ada")
    assert len(receiver.requests) == 1
