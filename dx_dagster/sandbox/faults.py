"""Faults between a client and Bitbucket; all are off at first."""

import asyncio
import gzip
import json
import re
import socket
import struct
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import MISSING, dataclass, field, fields
from http import HTTPStatus
from random import Random
from typing import Any, TypeVar

from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from dx_dagster.sandbox.answers import Refused, error, gone
from dx_dagster.sandbox.tokens import TOO_MANY, lacks

HTML = b"<!DOCTYPE html><html><body><h1>Bitbucket is down for maintenance</h1></body></html>"
MESSAGES = {
    500: "Internal server error",
    502: "Bad gateway",
    503: "Service unavailable",
    555: "Unable to respond in time",
}
# Lists that a fault may empty or thin out.
LISTS = frozenset(
    {
        *("repositories", "members", "hooks", "pullrequests", "commits", "comments", "activity", "pipelines"),
        *("environments", "deployments"),
    }
)
T = TypeVar("T")


@dataclass
class Override:
    """An action for addresses that match, at most `times` times."""

    pattern: re.Pattern[str]
    action: str
    times: int | None


@dataclass
class Faults:
    """Rates are chances from 0 to 1 per request. All may be changed while the sandbox runs.

    Attributes:
        latency: seconds before each answer, as a distant server has.
        serves: so many requests are answered at once, and the others wait.
        errors: chance of an answer out of `error_statuses`.
        resets: chance that the connection is reset without an answer.
        truncated: chance of a 200 with half a body whose Content-Length is right, that is, of broken JSON.
        cut_off: chance of a 200 with half a body whose Content-Length promises all of it.
        html: chance of a 200 that holds a page for people.
        hangs: chance of an answer only after `hang_seconds`.
        throttles: chance of a 429 without Retry-After.
        next_origin: origin that `next` links lead to, such as "https://evil.example".
        pages_in_circles: `next` leads back.
        revisions_unnamed: the 404 of `/commits` does not say which revisions are unknown.
        workspace_gone: /workspaces/{workspace} answers 410, as it did during the 2026 brownouts.
        sort_with_states_fails: `sort` together with `state` on pull requests answers 500, as on large repositories.
        feed_missing: the activity feed of a whole repository answers 404.
        feed_leaves_out: kinds of entries that this feed does not show.
        feed_length: so many entries of that feed, the newest, are all that it shows.
        empty_lists: names of lists (`LISTS`) that answer 200 without a row.
        lists_lack: share from 0 to 1 of the rows that a list of that name leaves out, although each row's own address
            answers as before. They are the same ones every time.
        moved_answers_elsewhere: the address below its old workspace, by uuid, answers with a repository that moved to
            another one; else it answers 404 (docs/bitbucket-api.md, "Not established").
        pipelines_with_slash_only: …/pipelines answers 404, only …/pipelines/ lists them; likewise environments and
            deployments.
        user_for_access_tokens: /user and /user/workspaces answer access tokens too (docs/bitbucket-api.md,
            "Credentials").
        compressed: answers are gzipped for clients that accept it.
        seed: decides which requests the chances hit.
    """

    latency: float = 0.0
    serves: int | None = None
    errors: float = 0.0
    error_statuses: Iterable[int] = (500, 502, 503, 555)
    resets: float = 0.0
    truncated: float = 0.0
    cut_off: float = 0.0
    html: float = 0.0
    hangs: float = 0.0
    hang_seconds: float = 60.0
    throttles: float = 0.0
    next_origin: str | None = None
    pages_in_circles: bool = False
    revisions_unnamed: bool = False
    workspace_gone: bool = False
    sort_with_states_fails: bool = False
    feed_missing: bool = False
    feed_leaves_out: Iterable[str] = ()
    feed_length: int | None = None
    empty_lists: Iterable[str] = ()
    lists_lack: Mapping[str, float] = field(default_factory=dict)
    moved_answers_elsewhere: bool = False
    pipelines_with_slash_only: bool = False
    user_for_access_tokens: bool = False
    compressed: bool = False
    seed: int = 7
    overrides: list[Override] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._rng = Random(self.seed)

    def on(self, pattern: str, action: str | int, times: int | None = None) -> None:
        """Sets an action for requests whose path with query matches: a status, or one of
        reset, truncated, cut_off, html, hang, throttle, scope (403: one is missing), list (200 with an empty list in
        place of an object), empty (200 with a page without rows), null_row (null in place of a page's last row),
        short (a page without its last row, whose size counts it), ok (no fault at all).
        """
        self.overrides.append(Override(re.compile(pattern), str(action), times))

    def clear(self) -> None:
        """Switches all faults off."""
        for knob in fields(self):
            setattr(self, knob.name, knob.default if knob.default_factory is MISSING else knob.default_factory())

    def set(self, settings: dict[str, Any]) -> None:
        """Sets several faults by name, for the control routes; `on` is a list of {pattern, action, times}.

        Raises:
            ValueError: a name is not known.
        """
        unknown = {*settings.get("empty_lists", ()), *settings.get("lists_lack", ())} - LISTS
        if unknown:
            raise ValueError(f"there is no list {', '.join(sorted(unknown))}; there are: {', '.join(sorted(LISTS))}")
        names = {knob.name for knob in fields(self)} - {"overrides"}
        for name, value in settings.items():
            if name == "on":
                for override in value:
                    self.on(**override)
            elif name in names:
                setattr(self, name, value)
            else:
                raise ValueError(f"{name} is no fault; there are: on, {', '.join(sorted(names))}")

    def left_of(self, name: str, rows: Sequence[T]) -> Sequence[T]:
        """The rows that the list of this name shows."""
        if name in self.empty_lists:
            return []
        share = self.lists_lack.get(name, 0.0)
        return [row for i, row in enumerate(rows) if int((i + 1) * share) == int(i * share)] if share else rows

    def choose(self, address: str) -> str | None:
        """The action for this request: a status, a name as in `on`, or None."""
        for override in self.overrides:
            if override.times != 0 and override.pattern.search(address):
                if override.times is not None:
                    override.times -= 1
                return None if override.action == "ok" else override.action
        for name in ("resets", "truncated", "cut_off", "html", "hangs", "throttles", "errors"):
            chance = getattr(self, name)
            if chance and self._rng.random() < chance:
                if name == "errors":
                    return str(self._rng.choice(list(self.error_statuses)))
                return {"resets": "reset", "hangs": "hang", "throttles": "throttle"}.get(name, name)
        return None


class FaultyServer:
    """Wraps the application: delays, breaks and compresses answers, except those of the control routes."""

    def __init__(self, app: ASGIApp, faults: Faults) -> None:
        self.app, self.faults = app, faults
        self._places: tuple[int, asyncio.Semaphore] | None = None

    @asynccontextmanager
    async def _place(self) -> AsyncIterator[None]:
        """A place among the requests that are answered at once."""
        serves = self.faults.serves
        if serves is None:
            yield
            return
        if self._places is None or self._places[0] != serves:
            self._places = serves, asyncio.Semaphore(serves)
        async with self._places[1]:
            yield

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"].startswith("/_sandbox/"):
            await self.app(scope, receive, send)
            return
        address = scope["raw_path"].decode() + ("?" + scope["query_string"].decode()).rstrip("?")
        async with self._place():
            if self.faults.latency:
                await asyncio.sleep(self.faults.latency)
        action = self.faults.choose(address)
        if action == "hang":
            await asyncio.sleep(self.faults.hang_seconds)
        if action == "reset":
            await _reset(receive)
        elif action in {None, "hang"}:
            await self.app(scope, receive, _compressing(scope, send) if self.faults.compressed else send)
        elif action in {"null_row", "short"}:
            await self.app(scope, receive, _WithoutLastRow(send, [None] if action == "null_row" else []).send)
        elif action in {"truncated", "cut_off"}:
            await self.app(scope, receive, _Half(send, honest=action == "truncated").send)
        else:
            await _answer(action or "", scope, receive, send)


async def _answer(action: str, scope: Scope, receive: Receive, send: Send) -> None:
    if action == "html":
        response = Response(HTML, media_type="text/html")
    elif action == "list":
        response = Response(b"[]", media_type="application/json")
    elif action == "empty":
        response = Response(b'{"values": []}', media_type="application/json")
    elif action == "throttle":
        response = Response(TOO_MANY, 429, {"content-type": "text/plain"})
    elif action == "scope":
        lacking = lacks(["repository"], ["account"])
        response = Response(lacking.body, lacking.status, media_type=lacking.content_type)
    else:
        status = int(action)
        refused = (
            gone()
            if status == HTTPStatus.GONE
            else Refused(status, error(MESSAGES.get(status, "Something went wrong")))
        )
        response = Response(refused.body, refused.status, media_type=refused.content_type)
    await response(scope, receive, send)


async def _reset(receive: Receive) -> None:
    """Sends a RST instead of an answer. uvicorn's objects are behind `receive`; there is no public way to them."""
    transport: Any = getattr(getattr(receive, "__self__", None), "transport", None)
    if transport is None:
        raise RuntimeError("connection resets need uvicorn's request object behind `receive`")
    connection = transport.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()


def _compressing(scope: Scope, send: Send) -> Send:
    """Compresses an answer, which comes in one piece here."""
    accepted = dict(scope["headers"]).get(b"accept-encoding", b"")
    start: dict[str, Any] = {}

    async def compressed(message: Any) -> None:
        if b"gzip" not in accepted:
            await send(message)
        elif message["type"] == "http.response.start":
            start.update(message)
        else:
            body = gzip.compress(message.get("body", b""), compresslevel=1)
            kept = [(name, value) for name, value in start["headers"] if name.lower() != b"content-length"]
            length = (b"content-length", str(len(body)).encode())
            await send({**start, "headers": [*kept, (b"content-encoding", b"gzip"), length]})
            await send({**message, "body": body})

    return compressed


class _Half:
    """Sends half of a body. Honest: as if that were all of it."""

    def __init__(self, send: Send, *, honest: bool) -> None:
        self._send, self._honest = send, honest
        self._start: dict[str, Any] = {}

    async def send(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            self._start = dict(message)
            return
        body = message.get("body", b"")[: len(message.get("body", b"")) // 2]
        if self._honest:
            kept = [(name, value) for name, value in self._start["headers"] if name.lower() != b"content-length"]
            self._start["headers"] = [*kept, (b"content-length", str(len(body)).encode())]
        await self._send(self._start)
        await self._send({**message, "body": body})


class _WithoutLastRow:
    """Sends a page with other rows in place of its last one."""

    def __init__(self, send: Send, instead: list[None]) -> None:
        self._send, self._instead = send, instead
        self._start: dict[str, Any] = {}

    async def send(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            self._start = dict(message)
            return
        body = message.get("body", b"")
        page = json.loads(body) if self._start["status"] == HTTPStatus.OK else None
        if isinstance(page, dict) and page.get("values"):
            body = json.dumps({**page, "values": [*page["values"][:-1], *self._instead]}).encode()
        kept = [(name, value) for name, value in self._start["headers"] if name.lower() != b"content-length"]
        await self._send({**self._start, "headers": [*kept, (b"content-length", str(len(body)).encode())]})
        await self._send({**message, "body": body})
