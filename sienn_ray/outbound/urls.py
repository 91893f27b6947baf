"""URLs that users name, in their one spelling; whatever two programs could read differently is refused."""

from __future__ import annotations

import contextlib
import ipaddress
import re
from dataclasses import dataclass

import idna

from sienn_ray.errors import DestinationError
from sienn_ray.outbound.addresses import Address

MAX_URL_CHARS = 2048
_DEFAULT_PORTS = {"http": 80, "https": 443}
_FIRST_FREE_PORT, _MAX_PORT = 1024, 65535
_MAX_HOST_CHARS = 253
_FORM = re.compile(r"(https?)://(\[[^\]/?#@]*\]|[^\[\]/?#@:]+)(?::([0-9]{1,5}))?([/?].*)?", re.IGNORECASE)
_LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?")
# As the last label of a name, it makes the whole name an IPv4 address for many programs (WHATWG's URL standard).
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")


@dataclass(frozen=True)
class OutboundUrl:
    """A URL in parts.

    Args:
        scheme: `http` or `https`.
        host: A name in ASCII, or an address without brackets.
        port: The port.
        target: Path and query, beginning with `/`.
        address: The address, where the host is one.
    """

    scheme: str
    host: str
    port: int
    target: str
    address: Address | None = None

    @property
    def authority(self) -> str:
        """Host and port as the header `Host` has them."""
        host = f"[{self.host}]" if isinstance(self.address, ipaddress.IPv6Address) else self.host
        return host if self.port == _DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def text(self) -> str:
        """The URL as a whole."""
        return f"{self.scheme}://{self.authority}{self.target}"


def parsed(text: str, *, allows_http: bool = False) -> OutboundUrl:
    """Return the parts of a URL.

    Args:
        text: The URL as a user has written it.
        allows_http: Whether a request may go without encryption.

    Raises:
        DestinationError: It isn't one that is taken; the message says why, without the URL, which may have a secret.

    Example:
        >>> parsed("https://Hooks.Example.org:443/in?team=1").text
        'https://hooks.example.org/in?team=1'
    """
    if len(text) > MAX_URL_CHARS:
        raise DestinationError(f"the URL has {len(text)} characters, and at most {MAX_URL_CHARS} are taken")
    if any(char.isspace() or not char.isprintable() for char in text) or "\\" in text:
        raise DestinationError("the URL has spaces, control characters or backslashes; write them as %20 and the like")
    match = _FORM.fullmatch(text)
    if match is None or "#" in text:
        raise DestinationError(
            "the URL isn't of the form https://host/path; it has no user, no password and no fragment (#)"
        )
    scheme, target = match[1].lower(), match[4] or "/"
    if scheme == "http" and not allows_http:
        raise DestinationError("the URL begins with http://, and only https:// is allowed here")
    if not target.isascii():
        raise DestinationError("the path of the URL has characters beyond ASCII; write them as %C3%A9 and the like")
    host, address = _host(match[2])
    return OutboundUrl(scheme, host, _port(match[3], scheme), target if target[0] == "/" else f"/{target}", address)


def _port(text: str | None, scheme: str) -> int:
    port = _DEFAULT_PORTS[scheme] if text is None else int(text)
    if port not in _DEFAULT_PORTS.values() and not _FIRST_FREE_PORT <= port <= _MAX_PORT:
        raise DestinationError(
            f"port {port} isn't one of HTTP's; 80, 443 and those from {_FIRST_FREE_PORT} to {_MAX_PORT} are taken"
        )
    return port


def _host(text: str) -> tuple[str, Address | None]:
    if text.startswith("["):
        address: Address = _address(text[1:-1], ipaddress.IPv6Address)
        return str(address), address
    name = _in_ascii(text).removesuffix(".")
    if _NUMBER.fullmatch(name.rpartition(".")[2]):
        address = _address(name, ipaddress.IPv4Address)
        return str(address), address
    if len(name) > _MAX_HOST_CHARS or not all(_LABEL.fullmatch(label) for label in name.split(".")):
        raise DestinationError("the host of the URL is no name; write it as in https://hooks.example.org/path")
    return name, None


def _in_ascii(name: str) -> str:
    """A name as DNS has it. Characters that mean others, such as wide digits, become those (UTS 46)."""
    if name.isascii():
        return name.lower()
    try:
        return idna.encode(name, uts46=True, std3_rules=True).decode()
    except (idna.IDNAError, UnicodeError):
        raise DestinationError("the host of the URL is no internationalized name; write it as xn--...") from None


def _address(
    text: str, kind: type[ipaddress.IPv4Address] | type[ipaddress.IPv6Address]
) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    with contextlib.suppress(ValueError):
        if "%" not in text:  # a zone, which means something on this machine only
            return kind(text)
    raise DestinationError(
        "the host of the URL looks like an address and isn't written as one; write 203.0.113.7 or [2001:db8::7]"
    )
