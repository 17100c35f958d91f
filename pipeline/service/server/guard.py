"""Who may ask: this machine's own programs and page, or whoever has the key."""

from __future__ import annotations

import hmac
import ipaddress
import re
from dataclasses import dataclass
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from moltlm.pipeline.service.server.requests import ApiError

OPEN = re.compile(r"/|/health|/page/[a-z.]+")
"""What is served without the key: nothing of the user's is in it."""
LOOPBACK_NAMES = ("localhost",)


def is_loopback(host: str) -> bool:
    """Whether a name or an address is this machine's own, which no other machine can reach."""
    try:
        return host in LOOPBACK_NAMES or ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


@dataclass(frozen=True)
class Guard:
    """Refuses requests before anything reads them.

    A page of another site can have its name resolve to this machine (DNS rebinding), so on a loopback address only
    requests to a loopback name are answered. A browser sends the site that a request is from (`Origin`); it has to be
    this server itself. Elsewhere the key is needed, which no other site has.

    Attributes:
        host: the address that the server listens on.
        key: what `Authorization: Bearer` has to carry; empty for nothing.
    """

    app: ASGIApp
    host: str
    key: str = ""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            try:
                self._check(scope["path"], Headers(scope=scope))
            except ApiError as error:
                await JSONResponse(error.body, error.status)(scope, receive, send)
                return
        await self.app(scope, receive, send)

    def _check(self, path: str, headers: Headers) -> None:
        """Raises ApiError for a request that is refused."""
        name, origin = headers.get("host", ""), headers.get("origin")
        if is_loopback(self.host) and not is_loopback(_split(f"//{name}")[1]):
            raise ApiError(403, "Requests to this name are refused: use localhost or 127.0.0.1.", code="host_refused")
        if origin is not None and _split(origin)[0] != name.lower():
            raise ApiError(403, "Requests from other sites are refused.", code="origin_refused")
        if self.key and not OPEN.fullmatch(path) and not self._has_key(headers.get("authorization", "")):
            raise ApiError(401, "The key is missing or wrong.", code="invalid_api_key")

    def _has_key(self, header: str) -> bool:
        kind, _, key = header.partition(" ")
        return kind.lower() == "bearer" and hmac.compare_digest(key.strip().encode(), self.key.encode())


def _split(url: str) -> tuple[str, str]:
    """Name with port, and name, of a URL, in lower case; empty where it is none."""
    try:
        parts = urlsplit(url.lower())
        return parts.netloc, parts.hostname or ""
    except ValueError:
        return "", ""
