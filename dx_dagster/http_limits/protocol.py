"""uvicorn's HTTP and WebSocket protocols with the limits."""

import asyncio
from collections.abc import Callable
from http import HTTPStatus
from typing import Any, TypedDict

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from dx_dagster.http_limits.addresses import counted_as
from dx_dagster.http_limits.admission import Admission, LimitRefusal, Place
from dx_dagster.http_limits.limits import BACKLOG, Limits

_PIPELINED_REQUESTS = 32
_LINGER_BYTES = 1024 * 1024

_INVALID = LimitRefusal(400, "it is not a valid HTTP request")
_UNFRAMED = LimitRefusal(400, "the chunks of a body are too small")
_PIPELINED = LimitRefusal(400, f"more than {_PIPELINED_REQUESTS} requests came before an answer")


class Options(TypedDict):
    """Arguments of `uvicorn.run` and `uvicorn.Config`."""

    http: type[HttpToolsProtocol]
    ws: type[WebSocketsSansIOProtocol]
    ws_max_size: int
    timeout_keep_alive: int
    timeout_graceful_shutdown: int
    backlog: int


def options(limits: Limits) -> Options:
    """Options of uvicorn that enforce the limits. Call it once for each server."""

    class Protocol(LimitedProtocol):
        admission = Admission(limits)

    return {
        "http": Protocol,
        "ws": LimitedWebSocket,
        "ws_max_size": limits.body,
        "timeout_keep_alive": max(1, round(limits.idle_seconds)),
        "timeout_graceful_shutdown": 5,  # the supervisor waits six
        "backlog": BACKLOG,
    }


class LimitError(Exception):
    """Stops the parser within a chunk of received data."""

    def __init__(self, refusal: LimitRefusal) -> None:
        super().__init__(refusal.reason)
        self.refusal = refusal


class LimitedProtocol(HttpToolsProtocol):
    """One HTTP connection. The parser calls the methods `on_…` for each part of a request."""

    admission: Admission
    address = ""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._place: Place | None = None
        self._is_over = False
        self._in_head = True
        self._unparsed = self._body_bytes = self._late_bytes = 0
        self.url = b""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn declares it
        super().connection_made(transport)
        self.address = counted_as(self.client[0] if self.client else "")
        refusal = self.admission.enter(self)
        if refusal is None:
            self.move(self.admission.heads)
        else:
            self._refuse(refusal)

    def connection_lost(self, exc: Exception | None) -> None:
        self.admission.leave(self)
        super().connection_lost(exc)

    def move(self, place: Place | None) -> None:
        """Moves the connection to a place; a connection that is already there keeps its position."""
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
            if self._unparsed > self.admission.largest_head:
                self._refuse(self.admission.large_headers)
                return
            if len(self.url) > self.admission.limits.request_line:
                self._refuse(self.admission.long_line)
                return
        elif self._unparsed > self.admission.largest_head:
            self._refuse(_UNFRAMED)
            return
        self._settle()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        if self._place is self.admission.heads and not self._in_head:
            self.move(None)  # another request, with a time of its own
        self._in_head = True
        self._body_bytes = 0

    def on_headers_complete(self) -> None:
        self._require_small_head()
        super().on_headers_complete()
        self._in_head = False
        self._unparsed = 0
        if self._place is self.admission.bodies:
            self.move(None)

    def _require_small_head(self) -> None:
        """Checks the head's size once for each request. At most one chunk from the network is in memory by then."""
        limits = self.admission.limits
        if len(self.url) > limits.request_line:
            raise LimitError(self.admission.long_line)
        if len(self.headers) > limits.fields:
            raise LimitError(self.admission.many_fields)
        size = 0
        for name, value in self.headers:
            size += len(name) + len(value) + 4  # with colon, space and the end of the line
            if name == b"content-length" and value.isdigit() and int(value) > limits.body:
                raise LimitError(self.admission.large_body)
        if size > limits.headers:
            raise LimitError(self.admission.large_headers)
        if len(self.pipeline) >= _PIPELINED_REQUESTS:
            raise LimitError(_PIPELINED)

    def on_body(self, body: bytes) -> None:
        self._unparsed = 0
        self._body_bytes += len(body)
        if self._body_bytes > self.admission.limits.body:
            raise LimitError(self.admission.large_body)
        super().on_body(body)

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._unparsed = 0
        if self._is_over:
            return
        if self.transport.is_closing():
            self.move(None)
            self.admission.unread.setdefault(self, self.loop.time())
        else:
            self._settle()

    def _settle(self) -> None:
        admission, cycle = self.admission, self.cycle
        if self.transport.is_closing():
            return
        if cycle is None or self._in_head:
            self.move(admission.heads)
        elif cycle.more_body:
            self.move(admission.bodies)
        elif cycle.response_complete:
            self.move(admission.idle)
        else:
            self.move(None)

    def pause_writing(self) -> None:
        super().pause_writing()
        self.admission.unread.setdefault(self, self.loop.time())

    def resume_writing(self) -> None:
        super().resume_writing()
        self.admission.unread.pop(self, None)

    def shutdown(self) -> None:
        if self._place is None or self._place is self.admission.idle:
            super().shutdown()
        else:  # its request is not complete, and would keep us
            self.drop()

    def _unsupported_upgrade_warning(self) -> None:
        """Writes no log line."""

    def end_head(self) -> None:
        if self._unparsed:
            self._refuse(self.admission.late_head)
        else:  # a browser opens connections before it needs them
            self.drop()

    def end_body(self) -> None:
        self._refuse(self.admission.late_body)

    def end_idle(self) -> None:
        if self.transport.is_closing():
            self.drop()
        else:
            self._is_over = True
            self.transport.close()
            self.admission.linger(self)

    def make_room(self, reason: LimitRefusal) -> None:
        """Closes the connection for another one. A partial request is answered 503, so that the client repeats it."""
        if self._place is self.admission.idle:
            self.admission.tell(reason, self.address)
            self.drop()
        else:
            self._refuse(reason)

    def end_unread(self) -> None:
        self.admission.tell(self.admission.late_reader, self.address)
        self.drop()

    def drop(self) -> None:
        """Aborts the connection at once."""
        self._is_over = True
        self.admission.leave(self)
        self.transport.abort()

    def _refuse(self, refusal: LimitRefusal) -> None:
        """Answers instead of the application, and reads no further request."""
        self.admission.tell(refusal, self.address)
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
        self.admission.linger(self)


class LimitedWebSocket(WebSocketsSansIOProtocol):
    """A WebSocket counts as a connection until it ends."""

    _leave: Callable[[], None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        before = transport.get_protocol()
        if isinstance(before, LimitedProtocol):
            self._leave = lambda: before.admission.leave(before)
        super().connection_made(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._leave is not None:
            self._leave()
        super().connection_lost(exc)
