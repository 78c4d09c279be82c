"""What a client may take of our HTTP servers: bytes and time for a request, and connections.

uvicorn has deadlines for idle connections alone. Its protocol is subclassed here: the limits hold before a request has
reached an application. When there are too many connections, those make room that have not sent their request yet: the
deliveries of Bitbucket are sent in one piece, and go on arriving.
"""

import asyncio
import logging
import resource
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Any, TypedDict

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from dx_dagster.settings import Settings

_BACKLOG = 512
# Connections that are accepted at once before others are closed for them, and files of ours: database, log, libraries.
_OTHER_FILES = _BACKLOG + 128
_FEWEST_CONNECTIONS = 16
_PIPELINED_REQUESTS = 32
# Who is refused while he sends must be read for a moment, or the system discards the answer together with the rest.
_LINGER_SECONDS = 2.0
_LINGER_BYTES = 1024 * 1024
_MOST_LINGERING = 64
_IPV6_HOST_BITS = 64  # who is given one address is given the whole network

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Limits:
    """Sizes are in bytes, times in seconds.

    Attributes:
        patience_seconds: what is younger makes no room for others; its request may be on its way.
        uncounted: addresses and networks of proxies, whose connections are everybody's.
    """

    request_line: int = 8 * 1024
    headers: int = 32 * 1024
    fields: int = 100
    body: int = 4 * 1024 * 1024
    head_seconds: float = 10
    body_seconds: float = 30
    idle_seconds: float = 60
    answer_seconds: float = 30
    patience_seconds: float = 1
    connections: int = 1000
    connections_per_address: int = 200
    uncounted: tuple[str, ...] = ()

    @classmethod
    def of(cls, settings: Settings) -> "Limits":
        return cls(
            connections=settings.http_connections,
            connections_per_address=settings.http_connections_per_address,
            uncounted=tuple(settings.proxies),
        )


class Options(TypedDict):
    """Arguments of `uvicorn.run` and `uvicorn.Config`."""

    http: type[HttpToolsProtocol]
    ws: type[WebSocketsSansIOProtocol]
    ws_max_size: int
    timeout_keep_alive: int
    timeout_graceful_shutdown: int
    backlog: int


def options(limits: Limits) -> Options:
    """What uvicorn must be started with for the limits to hold. One call for each server."""

    class Protocol(LimitedProtocol):
        door = Door(limits)

    return {
        "http": Protocol,
        "ws": LimitedWebSocket,
        "ws_max_size": limits.body,
        "timeout_keep_alive": max(1, round(limits.idle_seconds)),
        "timeout_graceful_shutdown": 5,  # the supervisor waits six
        "backlog": _BACKLOG,
    }


@dataclass(frozen=True)
class Refusal:
    """Why a connection is closed; `status` is None where nothing is answered."""

    status: int | None
    reason: str


class LimitError(Exception):
    """Ends the parser's work in the middle of what was received."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.reason)
        self.refusal = refusal


class RareLines:
    """At most so many lines a minute of each kind; the others are counted in one. Needs a running event loop."""

    def __init__(self, log: logging.Logger, most: int = 1, seconds: float = 60.0) -> None:
        self._log, self._most, self._seconds = log, most, seconds
        self._counts: dict[str, int] = {}

    def warning(self, kind: str, details: str = "") -> None:
        """Writes the kind with its details, or counts it. There must be few kinds."""
        if self.allows(kind):
            self._log.warning("%s%s", kind, details and f" {details}")

    def allows(self, kind: str) -> bool:
        """Whether a line of this kind is written now."""
        count = self._counts.get(kind, 0)
        if count == 0:
            asyncio.get_running_loop().call_later(self._seconds, self._count, kind)
        self._counts[kind] = count + 1
        return count < self._most

    def _count(self, kind: str) -> None:
        more = self._counts.pop(kind) - self._most
        if more > 0:
            self._log.warning("%s: %d more within %g s", kind, more, self._seconds)


_Place = OrderedDict["LimitedProtocol", float]


@dataclass(eq=False)
class Door:
    """The connections of one server, in the order in which they came to be where they are.

    A connection is in one place at a time, and in none while the application is at work on it.
    """

    limits: Limits
    heads: _Place = field(default_factory=OrderedDict)
    bodies: _Place = field(default_factory=OrderedDict)
    idle: _Place = field(default_factory=OrderedDict)
    unread: _Place = field(default_factory=OrderedDict)
    lingering: _Place = field(default_factory=OrderedDict)
    total: int = 0

    def __post_init__(self) -> None:
        limits = self.limits
        self._by_address: dict[str, set[LimitedProtocol]] = {}
        self._lines = RareLines(_log)
        self._sweeping: asyncio.TimerHandle | None = None
        self.largest_head = limits.request_line + limits.headers
        self.most = _affordable(limits.connections)
        deadlines = (
            limits.head_seconds,
            limits.body_seconds,
            limits.idle_seconds,
            limits.answer_seconds,
            _LINGER_SECONDS,
        )
        self._tick = min(deadlines) / 4
        self._uncounted = [ip_network(one) for one in limits.uncounted]
        self.long_line = Refusal(414, f"the request line is longer than {limits.request_line} bytes")
        self.large_headers = Refusal(431, f"the headers are larger than {limits.headers} bytes")
        self.many_fields = Refusal(431, f"there are more than {limits.fields} header fields")
        self.large_body = Refusal(413, f"the body is larger than {limits.body} bytes")
        self.late_head = Refusal(408, f"the head of a request was not complete within {limits.head_seconds:g} s")
        self.late_body = Refusal(408, f"the body of a request was not complete within {limits.body_seconds:g} s")
        self.late_reader = Refusal(None, f"an answer was not read within {limits.answer_seconds:g} s")
        most_theirs = limits.connections_per_address
        self.full = Refusal(503, f"there are {self.most} connections (DX_HTTP_CONNECTIONS)")
        self.full_address = Refusal(503, f"an address has {most_theirs} connections (DX_HTTP_CONNECTIONS_PER_ADDRESS)")

    def enter(self, connection: "LimitedProtocol") -> Refusal | None:
        """Counts a connection, or says why it cannot be taken in."""
        self._sweep_later(connection.loop)
        address = connection.address
        theirs = self._by_address.get(address, set())
        if len(theirs) >= self.limits.connections_per_address and not self._is_uncounted(connection):
            if not self._make_room(self.full_address, connection.loop.time(), theirs):
                return self.full_address
        elif self.total >= self.most and not self._make_room(self.full, connection.loop.time()):
            return self.full
        self._by_address.setdefault(address, set()).add(connection)
        self.total += 1
        return None

    def leave(self, connection: "LimitedProtocol") -> None:
        """Forgets a connection; it may have been forgotten before."""
        connection.move(None)
        self.unread.pop(connection, None)
        theirs = self._by_address.get(connection.address, set())
        if connection in theirs:
            theirs.remove(connection)
            self.total -= 1
        if not theirs:
            self._by_address.pop(connection.address, None)

    def linger(self, connection: "LimitedProtocol") -> None:
        """Keeps a connection, which counts no more, for as long as its client needs to read the answer."""
        self.leave(connection)
        while len(self.lingering) >= _MOST_LINGERING:
            next(iter(self.lingering)).drop()
        connection.move(self.lingering)

    def tell(self, refusal: Refusal, address: str) -> None:
        answer = f"answered {refusal.status}" if refusal.status else "closed"
        self._lines.warning(f"HTTP limit: {refusal.reason}", f"(from {address or 'a socket'}, {answer})")

    def _is_uncounted(self, connection: "LimitedProtocol") -> bool:
        if not self._uncounted or not connection.client:
            return False
        address = _parsed(connection.client[0])
        return address is not None and any(address in network for network in self._uncounted)

    def _make_room(self, reason: Refusal, now: float, among: "set[LimitedProtocol] | None" = None) -> bool:
        """Closes the connection that has kept us waiting for longest, if one has for long enough."""
        for place in (self.heads, self.idle, self.bodies, self.unread):
            if among is None:
                oldest = next(iter(place), None)
            else:
                oldest = min(among & place.keys(), key=place.__getitem__, default=None)
            if oldest is not None and place[oldest] <= now - self.limits.patience_seconds:
                oldest.make_room(reason)
                return True
        return False

    def _sweep_later(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._sweeping is None:
            self._sweeping = loop.call_later(self._tick, self._sweep, loop)

    def _sweep(self, loop: asyncio.AbstractEventLoop) -> None:
        """One timer for all connections: timers of their own would cost more than the rest of the limits."""
        self._sweeping = None
        limits, now = self.limits, loop.time()
        for place, seconds, end in (
            (self.heads, limits.head_seconds, LimitedProtocol.end_head),
            (self.bodies, limits.body_seconds, LimitedProtocol.end_body),
            (self.idle, limits.idle_seconds, LimitedProtocol.end_idle),
            (self.unread, limits.answer_seconds, LimitedProtocol.end_unread),
            (self.lingering, _LINGER_SECONDS, LimitedProtocol.drop),
        ):
            for connection in _since(place, now - seconds):
                end(connection)
        if self._by_address or self.lingering:
            self._sweep_later(loop)


def _since(place: _Place, moment: float) -> list["LimitedProtocol"]:
    found = []
    for connection, since in place.items():
        if since > moment:
            break
        found.append(connection)
    return found


def _affordable(connections: int) -> int:
    """As many connections as there can be open files for, which are asked for where there are too few."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + _OTHER_FILES
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return connections
    allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
        soft = allowed
    affordable = max(_FEWEST_CONNECTIONS, min(connections, soft - _OTHER_FILES))
    if affordable < connections:
        _log.warning(
            "At most %d connections instead of %d (DX_HTTP_CONNECTIONS): this process may have %d files open. "
            "Raise the limit of open files to %d (ulimit -n) for all.",
            affordable,
            connections,
            soft,
            wanted,
        )
    return affordable


def _parsed(host: str) -> IPv4Address | IPv6Address | None:
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:
        return None
    return (address.ipv4_mapped or address) if isinstance(address, IPv6Address) else address


def _address(client: tuple[str, int] | None) -> str:
    """Whose connection it is: an address, or the network of an IPv6 one."""
    host = client[0] if client else ""
    if ":" not in host:
        return host
    address = _parsed(host)
    if not isinstance(address, IPv6Address):
        return str(address or host)
    return f"{IPv6Address(int(address) >> _IPV6_HOST_BITS << _IPV6_HOST_BITS)}/{128 - _IPV6_HOST_BITS}"


class LimitedProtocol(HttpToolsProtocol):
    """One connection. The parser calls the methods `on_…` for each part of a request while it is fed."""

    door: Door
    address = ""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._place: _Place | None = None
        self._is_over = False
        self._in_head = True
        self._unparsed = self._body_bytes = self._late_bytes = 0
        self.url = b""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn declares it
        super().connection_made(transport)
        self.address = _address(self.client)
        refusal = self.door.enter(self)
        if refusal is None:
            self.move(self.door.heads)
        else:
            self._refuse(refusal)

    def connection_lost(self, exc: Exception | None) -> None:
        self.door.leave(self)
        super().connection_lost(exc)

    def move(self, place: _Place | None) -> None:
        """Where the connection is from now on; it keeps its turn where it is there already."""
        if place is self._place:
            return
        if self._place is not None:
            self._place.pop(self, None)
        if place is not None:
            place[self] = self.loop.time()
        self._place = place

    def data_received(self, data: bytes) -> None:
        if self._is_over:
            self._late_bytes += len(data)
            if self._late_bytes > _LINGER_BYTES:
                self.drop()
            return
        self._unset_keepalive_if_required()
        self._unparsed += len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            if self._should_upgrade():
                self.move(None)
                self.handle_websocket_upgrade()
                return
        except httptools.HttpParserError as error:
            limit = error.__context__
            self._refuse(limit.refusal if isinstance(limit, LimitError) else _INVALID)
            return
        if self._in_head:
            # The parser keeps a field that is not complete to itself.
            if self._unparsed > self.door.largest_head:
                self._refuse(self.door.large_headers)
                return
            if len(self.url) > self.door.limits.request_line:
                self._refuse(self.door.long_line)
                return
        elif self._unparsed > self.door.largest_head:
            self._refuse(_UNFRAMED)
            return
        self._settle()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        if self._place is self.door.heads and not self._in_head:
            self.move(None)  # another request, with a time of its own
        self._in_head = True
        self._body_bytes = 0

    def on_headers_complete(self) -> None:
        self._require_small_head()
        super().on_headers_complete()
        self._in_head = False
        self._unparsed = 0
        if self._place is self.door.bodies:
            self.move(None)

    def _require_small_head(self) -> None:
        """Adds up once for each request: by then no more than one piece from the network is in memory."""
        limits = self.door.limits
        if len(self.url) > limits.request_line:
            raise LimitError(self.door.long_line)
        if len(self.headers) > limits.fields:
            raise LimitError(self.door.many_fields)
        size = 0
        for name, value in self.headers:
            size += len(name) + len(value) + 4  # with colon, space and the end of the line
            if name == b"content-length" and value.isdigit() and int(value) > limits.body:
                raise LimitError(self.door.large_body)
        if size > limits.headers:
            raise LimitError(self.door.large_headers)
        if len(self.pipeline) >= _PIPELINED_REQUESTS:
            raise LimitError(_PIPELINED)

    def on_body(self, body: bytes) -> None:
        self._unparsed = 0
        self._body_bytes += len(body)
        if self._body_bytes > self.door.limits.body:
            raise LimitError(self.door.large_body)
        super().on_body(body)

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._unparsed = 0
        if self._is_over:
            return
        if self.transport.is_closing():
            self.move(None)
            self.door.unread.setdefault(self, self.loop.time())
        else:
            self._settle()

    def _settle(self) -> None:
        door, cycle = self.door, self.cycle
        if self.transport.is_closing():
            return
        if cycle is None or self._in_head:
            self.move(door.heads)
        elif cycle.more_body:
            self.move(door.bodies)
        elif cycle.response_complete:
            self.move(door.idle)
        else:
            self.move(None)

    def pause_writing(self) -> None:
        super().pause_writing()
        self.door.unread.setdefault(self, self.loop.time())

    def resume_writing(self) -> None:
        super().resume_writing()
        self.door.unread.pop(self, None)

    def shutdown(self) -> None:
        if self._place is None or self._place is self.door.idle:
            super().shutdown()
        else:  # its request is not complete, and would keep us
            self.drop()

    def _unsupported_upgrade_warning(self) -> None:
        """No line for each of them."""

    def end_head(self) -> None:
        if self._unparsed:
            self._refuse(self.door.late_head)
        else:  # a browser opens connections before it needs them
            self.drop()

    def end_body(self) -> None:
        self._refuse(self.door.late_body)

    def end_idle(self) -> None:
        if self.transport.is_closing():
            self.drop()
        else:
            self._is_over = True
            self.transport.close()
            self.door.linger(self)

    def make_room(self, reason: Refusal) -> None:
        """Gives its place to another. What comes of its request meanwhile is answered, so that it is sent again."""
        if self._place is self.door.idle:
            self.door.tell(reason, self.address)
            self.drop()
        else:
            self._refuse(reason)

    def end_unread(self) -> None:
        self.door.tell(self.door.late_reader, self.address)
        self.drop()

    def drop(self) -> None:
        """Ends the connection at once, whatever is under way."""
        self._is_over = True
        self.door.leave(self)
        self.transport.abort()

    def _refuse(self, refusal: Refusal) -> None:
        """Answers instead of the application, and takes nothing more."""
        self.door.tell(refusal, self.address)
        self._is_over = True
        cycle = self.cycle
        under_way = cycle is not None and not cycle.response_complete
        if under_way:
            cycle.disconnected = True
            cycle.message_event.set()
        answered_already = cycle is not None and not self._in_head and (cycle.response_started or self.pipeline)
        if answered_already or (under_way and self._in_head) or self.transport.is_closing() or not refusal.status:
            self.drop()
            return
        body = refusal.reason.encode()
        head = [
            f"HTTP/1.1 {refusal.status} {HTTPStatus(refusal.status).phrase}".encode(),
            *(name + b": " + value for name, value in self.server_state.default_headers),
            b"content-type: text/plain; charset=utf-8",
            b"content-length: %d" % len(body),
            b"connection: close",
        ]
        self.transport.write(b"\r\n".join([*head, b"", body]))
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.door.linger(self)


_INVALID = Refusal(400, "it is not a valid HTTP request")
_UNFRAMED = Refusal(400, "a body consists of next to nothing but its framing")
_PIPELINED = Refusal(400, f"more than {_PIPELINED_REQUESTS} requests came before an answer")


class LimitedWebSocket(WebSocketsSansIOProtocol):
    """A connection that became a WebSocket counts as one until it ends."""

    _leave: Callable[[], None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        before = transport.get_protocol()
        if isinstance(before, LimitedProtocol):
            self._leave = lambda: before.door.leave(before)
        super().connection_made(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._leave is not None:
            self._leave()
        super().connection_lost(exc)
