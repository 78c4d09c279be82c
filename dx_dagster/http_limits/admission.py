"""Admits connections to a server, and closes those that exceed a limit or a deadline."""

import asyncio
import logging
from collections import OrderedDict
from dataclasses import dataclass, field
from ipaddress import ip_network
from typing import Protocol

from dx_dagster.http_limits.addresses import parsed
from dx_dagster.http_limits.limits import Limits, affordable
from dx_dagster.http_limits.rare_lines import RareLines

# After a refusal the rest of the request is read for a moment: otherwise the kernel resets the connection and the
# client never sees the answer.
_LINGER_SECONDS = 2.0
_MOST_LINGERING = 64

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class LimitRefusal:
    """Why a connection is closed; `status` is None where no answer is sent."""

    status: int | None
    reason: str


class LimitedConnection(Protocol):
    """The methods of a connection that `Admission` calls."""

    loop: asyncio.AbstractEventLoop
    client: tuple[str, int] | None
    address: str

    def move(self, place: "Place | None") -> None: ...

    def make_room(self, reason: LimitRefusal) -> None: ...

    def end_head(self) -> None: ...

    def end_body(self) -> None: ...

    def end_idle(self) -> None: ...

    def end_unread(self) -> None: ...

    def drop(self) -> None: ...


Place = OrderedDict[LimitedConnection, float]


@dataclass(eq=False)
class Admission:
    """The connections of one server by state, each state in order of arrival.

    A connection is in one place at a time, and in none while the application handles its request.
    """

    limits: Limits
    heads: Place = field(default_factory=OrderedDict)
    bodies: Place = field(default_factory=OrderedDict)
    idle: Place = field(default_factory=OrderedDict)
    unread: Place = field(default_factory=OrderedDict)
    lingering: Place = field(default_factory=OrderedDict)
    total: int = 0

    def __post_init__(self) -> None:
        limits = self.limits
        self._by_address: dict[str, set[LimitedConnection]] = {}
        self._lines = RareLines(_log)
        self._sweeping: asyncio.TimerHandle | None = None
        self.largest_head = limits.request_line + limits.headers
        self.most = affordable(limits.connections)
        deadlines = (
            limits.head_seconds,
            limits.body_seconds,
            limits.idle_seconds,
            limits.answer_seconds,
            _LINGER_SECONDS,
        )
        self._tick = min(deadlines) / 4
        self._uncounted = [ip_network(one) for one in limits.uncounted]
        self.long_line = LimitRefusal(414, f"the request line is longer than {limits.request_line} bytes")
        self.large_headers = LimitRefusal(431, f"the headers are larger than {limits.headers} bytes")
        self.many_fields = LimitRefusal(431, f"there are more than {limits.fields} header fields")
        self.large_body = LimitRefusal(413, f"the body is larger than {limits.body} bytes")
        self.late_head = LimitRefusal(408, f"the head of a request was not complete within {limits.head_seconds:g} s")
        self.late_body = LimitRefusal(408, f"the body of a request was not complete within {limits.body_seconds:g} s")
        self.late_reader = LimitRefusal(None, f"an answer was not read within {limits.answer_seconds:g} s")
        most_theirs = limits.connections_per_address
        self.full = LimitRefusal(503, f"there are {self.most} connections (DX_HTTP_CONNECTIONS)")
        self.full_address = LimitRefusal(
            503, f"an address has {most_theirs} connections (DX_HTTP_CONNECTIONS_PER_ADDRESS)"
        )

    def enter(self, connection: LimitedConnection) -> LimitRefusal | None:
        """Counts a new connection, or returns why it is refused."""
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

    def leave(self, connection: LimitedConnection) -> None:
        """Removes a connection; a second call does nothing."""
        connection.move(None)
        self.unread.pop(connection, None)
        theirs = self._by_address.get(connection.address, set())
        if connection in theirs:
            theirs.remove(connection)
            self.total -= 1
        if not theirs:
            self._by_address.pop(connection.address, None)

    def linger(self, connection: LimitedConnection) -> None:
        """Keeps a closed connection open until its client has read the answer. It no longer counts."""
        self.leave(connection)
        while len(self.lingering) >= _MOST_LINGERING:
            next(iter(self.lingering)).drop()
        connection.move(self.lingering)

    def tell(self, refusal: LimitRefusal, address: str) -> None:
        answer = f"answered {refusal.status}" if refusal.status else "closed"
        self._lines.warning(f"HTTP limit: {refusal.reason}", f"(from {address or 'a socket'}, {answer})")

    def _is_uncounted(self, connection: LimitedConnection) -> bool:
        if not self._uncounted or not connection.client:
            return False
        address = parsed(connection.client[0])
        return address is not None and any(address in network for network in self._uncounted)

    def _make_room(self, reason: LimitRefusal, now: float, among: set[LimitedConnection] | None = None) -> bool:
        """Closes the connection that has waited longest, if that is longer than `patience_seconds`."""
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
        """Ends overdue connections. One timer serves all: a timer each costs more than all other limits."""
        self._sweeping = None
        limits, now = self.limits, loop.time()
        for connection in _since(self.heads, now - limits.head_seconds):
            connection.end_head()
        for connection in _since(self.bodies, now - limits.body_seconds):
            connection.end_body()
        for connection in _since(self.idle, now - limits.idle_seconds):
            connection.end_idle()
        for connection in _since(self.unread, now - limits.answer_seconds):
            connection.end_unread()
        for connection in _since(self.lingering, now - _LINGER_SECONDS):
            connection.drop()
        if self._by_address or self.lingering:
            self._sweep_later(loop)


def _since(place: Place, moment: float) -> list[LimitedConnection]:
    found = []
    for connection, since in place.items():
        if since > moment:
            break
        found.append(connection)
    return found
