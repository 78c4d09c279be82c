"""The record of all requests, for tests that count and compare them."""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from starlette.types import ASGIApp, Message, Receive, Scope, Send

KEPT_REQUESTS = 200_000


class Recorded(NamedTuple):
    """A request. `path` has the query; `status` is None when the connection was reset."""

    method: str
    path: str
    token: str | None
    status: int | None


@dataclass
class Requests:
    """All requests since the last `reset`; `count` includes those that are dropped from the record."""

    recorded: deque[Recorded] = field(default_factory=lambda: deque(maxlen=KEPT_REQUESTS))
    count: int = 0

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[Recorded]:
        return iter(self.list())

    def add(self, request: Recorded) -> None:
        self.recorded.append(request)
        self.count += 1

    def list(self) -> list[Recorded]:
        return list(self.recorded)

    def reset(self) -> None:
        self.recorded.clear()
        self.count = 0


class Recorder:
    """The outermost application: records each request and the status of its answer."""

    def __init__(self, app: ASGIApp, requests: Requests) -> None:
        self.app, self.requests = app, requests

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"].startswith("/_sandbox/"):
            await self.app(scope, receive, send)
            return
        status: list[int] = []

        async def watched(message: Message) -> None:
            if message["type"] == "http.response.start":
                status.append(int(str(message["status"])))
            await send(message)

        query = scope["query_string"].decode()
        path = scope["raw_path"].decode() + (f"?{query}" if query else "")
        try:
            await self.app(scope, receive, watched)
        finally:
            token = scope.get("sandbox.token")
            self.requests.add(Recorded(scope["method"], path, token, status[0] if status else None))
