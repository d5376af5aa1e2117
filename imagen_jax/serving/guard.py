"""Who may ask: the token, the host by which the page is reached, and the page itself.

A server on localhost is reached by every page that its user's browser shows. What such
a page sends carries its own `Origin`; a name that an attacker's DNS points to this
machine (DNS rebinding) stands in `Host`. Both are refused, with a token or without.
"""

import dataclasses
import hashlib
import hmac
import ipaddress
import json
import secrets
from collections.abc import Awaitable, Callable
from urllib.parse import urlsplit

from aiohttp import web

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

SHORTEST = 16  # Characters of a token.
ENTRY = "/enter"
# What may be seen without the token: where it is asked for.
OPEN = {ENTRY, "/page.css", "/icon.svg"}
SAFE = {"GET", "HEAD"}
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; "
    "style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
    "Server": "imagen-jax",
}


def loopback(host: str) -> bool:
    """Whether an address to listen on is reached from this machine alone."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def checked_token(token: str | None, host: str) -> str:
    """The token that is required: the given one, a new one, or "" on a loopback.

    Raises:
      ValueError: if it can be guessed.
    """
    if token is None:
        return "" if loopback(host) else secrets.token_urlsafe(24)
    if len(token) < SHORTEST or not token.isascii() or not token.isprintable():
        raise ValueError(
            f"serve: --token must be at least {SHORTEST} printable ASCII characters, "
            f"got {len(token)}; leave it out to have one made."
        )
    return token


@dataclasses.dataclass(frozen=True)
class Guard:
    """The middleware that lets a request pass.

    Attributes:
      token: what must be shown; "" asks for none.
      names: hosts by whose name the page may be reached, beside addresses and
        localhost.
      port: of the server, which makes its cookie differ from another server's.
    """

    token: str = ""
    names: frozenset[str] = frozenset()
    port: int = 8000

    @property
    def middlewares(self) -> list:
        """From the outside in."""

        @web.middleware
        async def told(request: web.Request, handler: Handler) -> web.StreamResponse:
            return await self._told(request, handler)

        @web.middleware
        async def let(request: web.Request, handler: Handler) -> web.StreamResponse:
            return await self._let(request, handler)

        return [told, let]

    async def _told(self, request: web.Request, handler: Handler):
        """Every answer has the headers, and every error is JSON of one line."""
        try:
            response = await handler(request)
        except web.HTTPException as error:
            if error.status < 400:
                error.headers.update(HEADERS)
                raise
            response = refused(error.status, f"{error.reason}.")
        if not response.prepared:
            response.headers.update(HEADERS)
        return response

    async def _let(self, request: web.Request, handler: Handler):
        if not self._known(request.host):
            return refused(
                403,
                f"This server is not reached as {request.host!r}; start it with "
                "--allow-host NAME if that name is its own.",
            )
        if not self._own(request):
            return refused(403, "Requests from other sites are refused.")
        if request.path == ENTRY and request.method == "POST":
            return await self._enter(request)
        if self.token and request.path not in OPEN and not self._shown(request):
            if request.path == "/" and (sent := request.query.get("token")):
                return self._welcome(sent)
            if request.path == "/" and request.method in SAFE:
                raise web.HTTPSeeOther(ENTRY)
            return refused(401, "The token is required; open the page to give it.")
        return await handler(request)

    def _known(self, host: str) -> bool:
        """DNS rebinding needs a name: addresses and localhost are no one's to point."""
        try:
            name = urlsplit(f"//{host}").hostname or ""
        except ValueError:
            return False
        if name == "localhost" or name.endswith(".localhost"):
            return True
        try:
            ipaddress.ip_address(name)
            return True
        except ValueError:
            return name in self.names

    def _own(self, request: web.Request) -> bool:
        """Whether no other site's page sent it; links from there may show the page."""
        asks = request.method not in SAFE or request.path.startswith("/api/")
        if not asks:
            return True
        origin = request.headers.get("Origin")
        if origin is not None and urlsplit(origin).netloc != request.host:
            return False
        site = request.headers.get("Sec-Fetch-Site", "none")
        return site in ("none", "same-origin")

    def _shown(self, request: web.Request) -> bool:
        header = request.headers.get("Authorization", "")
        bearer = header.removeprefix("Bearer ") if header.startswith("Bearer ") else ""
        cookie = request.cookies.get(self._cookie, "")
        # Both always, so that the time tells nothing.
        by_header, by_cookie = same(bearer, self.token), same(cookie, self._ticket)
        return by_header or by_cookie

    async def _enter(self, request: web.Request) -> web.StreamResponse:
        if request.content_type != "application/x-www-form-urlencoded":
            return refused(415, "A form is required.")
        if (request.content_length or 0) > 4096:
            return refused(413, "That is no token.")
        return self._welcome(str((await request.post()).get("token", "")))

    def _welcome(self, sent: str) -> web.StreamResponse:
        """Trade the token for a cookie, and take it out of the address bar."""
        right = same(sent.strip(), self.token)
        response = web.Response(status=303)
        response.headers["Location"] = "/" if right else f"{ENTRY}?wrong=1"
        if right:
            response.set_cookie(
                self._cookie, self._ticket, httponly=True, samesite="Strict"
            )
        return response

    @property
    def _cookie(self) -> str:
        # Cookies know no ports: other servers of this host have cookies of their own.
        return f"imagen_jax_{self.port}"

    @property
    def _ticket(self) -> str:
        """What the cookie holds: it opens this server, and does not tell the token."""
        return hmac.new(self.token.encode(), b"cookie", hashlib.sha256).hexdigest()


def same(one: str, other: str) -> bool:
    """Whether two texts are equal, in a time that does not tell where they differ."""
    # What a header holds need not be text.
    return hmac.compare_digest(
        one.encode(errors="surrogateescape"), other.encode(errors="surrogateescape")
    )


def refused(status: int, why: str) -> web.Response:
    """An error as the page and `curl` read it."""
    return web.Response(
        status=status,
        text=json.dumps({"error": why}),
        content_type="application/json",
    )
