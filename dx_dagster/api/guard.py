"""The guard against other people's web pages: which hosts we serve, and which requests a page of ours sent.

A browser sends requests for any page that is open in it, with the cookies of the host that they go to, and from inside
the network. It tells with each where the page came from, which a page cannot change. Programs tell nothing of the kind:
they pass, and need a key where there is one.
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
    """The hosts that a server is asked for by right: loopback names, its own address, and the given names.

    A page whose name is made to point at this machine (DNS rebinding) sends its own name as the host.
    """

    names: frozenset[str]

    def serve(self, host: str, scope: Scope) -> bool:
        """Whether the host (without its port) is one of ours; `scope` tells the address that was connected to."""
        address = (scope.get("server") or ("",))[0]
        return is_loopback(host) or host in self.names or host == address.lower()


def host_name(host: str) -> str:
    """A Host header's name or address without its port, in lower case; empty where it is neither."""
    found = _HOST.fullmatch(host)
    return (found["name"] or found["v6"]).lower().removesuffix(".") if found else ""


def is_foreign(headers: Headers, hosts: Hosts, scope: Scope) -> bool:
    """Whether a browser sends this for a page of another origin. Another port of the same host is another origin."""
    site, origin = headers.get("sec-fetch-site"), headers.get("origin")
    if site is not None and site not in {"same-origin", "none"}:
        return True
    if origin is None:
        return False
    _, _, place = origin.lower().partition("://")  # of the origin "null", nothing
    if place and place == headers.get("host", "").lower():
        return False
    # A proxy may have put another host into the request; the browser knows better, where it says.
    return not (site == "same-origin" and hosts.serve(host_name(place), scope))


def refusal(scope: Scope, hosts: Hosts) -> tuple[int, str] | None:
    """The status and the sentence for a request or WebSocket that the guard refuses."""
    headers = Headers(scope=scope)
    given = headers.getlist("host")
    if len(given) != 1 or not hosts.serve(host_name(given[0]), scope):
        return _NO_SUCH_HOST, (
            "This server is not known under the host that the request asks for. "
            "DX_ALLOWED_HOSTS names the hosts, beside localhost, that it is to serve."
        )
    if is_foreign(headers, hosts, scope) and not _follows_a_link(scope, headers):
        return 403, (
            "A page of another site had this request sent; only pages of this server may. If this is a page of this "
            "server, its proxy must hand on the Host header, or DX_ALLOWED_HOSTS name the host."
        )
    return None


def _follows_a_link(scope: Scope, headers: Headers) -> bool:
    """Whether a whole page is opened to be looked at: by a link, not as an image, script or frame."""
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
    """Refuses what hosts and origin speak against, but for paths where nothing depends on either."""

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
