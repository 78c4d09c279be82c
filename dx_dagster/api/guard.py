"""The guard against foreign web pages: checks the Host header, and the origin of requests from browsers.

A browser sends requests for any open page, with the cookies of their target and from inside the network. It states
the page's origin, which the page cannot change. Programs send no origin: the guard lets them pass, and they need an
API key where one is required.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass

from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from dx_dagster.settings import is_loopback

_HOST = re.compile(r"(?:(?P<name>[A-Za-z0-9_.-]{1,253})|\[(?P<v6>[0-9A-Fa-f:.]{2,45})\])(?::[0-9]{1,5})?")
_READING = frozenset({"GET", "HEAD"})
_NO_SUCH_HOST = 421


@dataclass(frozen=True)
class Hosts:
    """The hosts that a server accepts: loopback names, its own address, and the given names.

    In a DNS rebinding attack the page's name points at this machine, and the browser sends that name as the host.
    """

    names: frozenset[str]

    def serve(self, host: str, scope: Scope) -> bool:
        """Whether the server accepts the host (without port); `scope` has the address of the connection."""
        address = (scope.get("server") or ("",))[0]
        return is_loopback(host) or host in self.names or host == address.lower()


def host_name(host: str) -> str:
    """The name or address of a Host header, in lower case and without port; empty if it is invalid."""
    found = _HOST.fullmatch(host)
    return (found["name"] or found["v6"]).lower().removesuffix(".") if found else ""


def is_foreign(headers: Headers, hosts: Hosts, scope: Scope) -> bool:
    """Whether a browser sends this for a page of another origin; a different port is a different origin."""
    site, origin = headers.get("sec-fetch-site"), headers.get("origin")
    if site is not None and site not in {"same-origin", "none"}:
        return True
    if origin is None:
        return False
    _, _, place = origin.lower().partition("://")  # of the origin "null", nothing
    if place and place == headers.get("host", "").lower():
        return False
    # A proxy may have changed the Host header; the browser's Sec-Fetch-Site does not change.
    return not (site == "same-origin" and hosts.serve(host_name(place), scope))


def refusal(scope: Scope, hosts: Hosts) -> tuple[int, str] | None:
    """The status and the sentence for a request or WebSocket that the guard refuses."""
    headers = Headers(scope=scope)
    given = headers.getlist("host")
    if len(given) != 1 or not hosts.serve(host_name(given[0]), scope):
        return _NO_SUCH_HOST, (
            "This server does not accept the Host header of the request. "
            "DX_ALLOWED_HOSTS lists the hosts that it accepts beside localhost."
        )
    if is_foreign(headers, hosts, scope) and not _follows_a_link(scope, headers):
        return 403, (
            "A page of another site sent this request; only pages of this server may. If this is a page of this "
            "server, its proxy must pass on the Host header, or DX_ALLOWED_HOSTS must list the host."
        )
    return None


def _follows_a_link(scope: Scope, headers: Headers) -> bool:
    """Whether the request opens a page by a link, not an image, script or frame."""
    return (
        scope["type"] == "http"
        and scope["method"] in _READING
        and "origin" not in headers
        and headers.get("sec-fetch-mode") == "navigate"
        and headers.get("sec-fetch-dest") == "document"
    )


def nothing(_: str) -> bool:
    return False


class Guard:
    """Refuses requests with a wrong host or a foreign origin, except for the paths of `is_open`."""

    def __init__(self, app: ASGIApp, hosts: Hosts, is_open: Callable[[str], bool] = nothing) -> None:
        self.app, self._hosts, self._is_open = app, hosts, is_open

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan" and not self._is_open(scope["path"]):
            refused = refusal(scope, self._hosts)
            if refused is not None:
                status, sentence = refused
                await PlainTextResponse(f"{sentence}\n", status)(scope, receive, send)
                return
        await self.app(scope, receive, send)
