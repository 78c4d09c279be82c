"""One request with its token checked: what its path names, filters, sorting and pages."""

import base64
import binascii
import hashlib
import json
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar
from urllib.parse import quote, urlencode

from starlette.datastructures import QueryParams

from dx_dagster.sandbox import fields
from dx_dagster.sandbox.answers import Refused, error, html_not_found
from dx_dagster.sandbox.bbql import Getter, QueryError, compile_query, floor
from dx_dagster.sandbox.codebases import Codebase
from dx_dagster.sandbox.commits import Commit, log
from dx_dagster.sandbox.faults import Faults
from dx_dagster.sandbox.fields import Selection
from dx_dagster.sandbox.rendering import Json
from dx_dagster.sandbox.repositories import HostedRepository
from dx_dagster.sandbox.tokens import Token
from dx_dagster.sandbox.world import World

T = TypeVar("T")
Render = Callable[[T, Selection], bytes]

KEPT_RENDERINGS = 30_000
KEPT_WALKS = 64


def encode(rendered: Json) -> bytes:
    return json.dumps(rendered, separators=(",", ":")).encode()


@dataclass
class Memory:
    """JSON that was rendered before, by thing and `fields`, and walks over commit graphs; the oldest goes first."""

    renderings: OrderedDict[tuple[object, ...], tuple[object, bytes]] = field(default_factory=OrderedDict)
    walks: OrderedDict[tuple[object, ...], list[Commit]] = field(default_factory=OrderedDict)
    cursors: dict[str, tuple[Sequence[Commit], Sequence[Commit]]] = field(default_factory=dict)

    def rendered(self, key: tuple[object, ...], version: object, render: Callable[[], bytes]) -> bytes:
        """The bytes of `key`, rendered again when its version is another."""
        known = self.renderings.get(key)
        if known is not None and known[0] == version:
            return known[1]
        body = render()
        self.renderings[key] = (version, body)
        if len(self.renderings) > KEPT_RENDERINGS:
            self.renderings.popitem(last=False)
        return body

    def walk(self, repository: Codebase, include: Sequence[Commit], exclude: Sequence[Commit]) -> list[Commit]:
        key = (repository.uuid, tuple(c.sha for c in include), tuple(c.sha for c in exclude))
        if key not in self.walks:
            self.walks[key] = log(include, exclude)
            if len(self.walks) > KEPT_WALKS:
                self.walks.popitem(last=False)
        return self.walks[key]

    def remember(self, include: Sequence[Commit], exclude: Sequence[Commit]) -> str:
        """A short name for the two ends of a walk, so that a cursor need not spell out a thousand branches."""
        ends = " ".join([*(c.sha for c in include), "-", *(c.sha for c in exclude)])
        name = hashlib.sha256(ends.encode()).hexdigest()[:16]
        self.cursors[name] = (include, exclude)
        return name


@dataclass
class IncomingCall:
    """A request with its token checked and its rate limit counted. `url` is without the query.

    `world` holds what the path names, as far as that is known, and is one of `worlds`.
    """

    worlds: Sequence[World]
    world: World
    memory: Memory
    faults: Faults
    token: Token
    method: str
    url: str
    path: Mapping[str, str]
    query: QueryParams
    body: bytes = b""

    @property
    def selection(self) -> Selection:
        return fields.parse(self.query.get("fields", ""))

    # -- what the path names ------------------------------------------------------------------------------------------

    def check_workspace(self) -> None:
        """A workspace that the token does not see answers 403, also a missing one (docs/bitbucket-api.md, "Errors")."""
        key = self.path["workspace"]
        if not any(world.is_called(key) and self.token.opens(world) for world in self.worlds):
            raise Refused(403, error("You do not have access to this workspace."))

    def repository(self, *, html: bool = False) -> HostedRepository:
        """The repository in the path, by slug or uuid; with a uuid the workspace may be left as `{}`.

        Raises:
            Refused: 404 (as HTML where the real endpoint answers that), or 403 for one that may not be entered.
        """
        key = self.path["repository"]
        if self.path["workspace"] != "{}" or not key.startswith("{"):
            self.check_workspace()
        try:
            repository: HostedRepository | None = self.world.repository(key)
        except KeyError:
            repository = None
        if repository is None or not self.token.opens(self.world) or not self.token.is_told_of(repository):
            missing = error(f"Repository {self.path['workspace']}/{key} not found")
            raise html_not_found() if html else Refused(404, missing)
        if repository.forbidden or not self.token.may_enter(repository):
            raise Refused(403, error("Your credentials do not give access to this repository."))
        return repository

    # -- filtering and sorting ----------------------------------------------------------------------------------------

    def filtered(self, things: Sequence[T], fields: Mapping[str, Getter], *, ids_ascend: bool = False) -> Sequence[T]:
        """The things that match `q`; `ids_ascend` says that they come in the order of their ids."""
        q = self.query.get("q", "").strip()
        if not q:
            return things
        try:
            predicate = compile_query(q, fields)
            after = floor(predicate, "id") if ids_ascend else None
            if after is not None:
                things = things[bisect_right(things, after, key=fields["id"]) :]
            return [thing for thing in things if predicate(thing)]
        except QueryError as failure:
            raise Refused(400, error(f"Invalid query: {failure}")) from None

    def sorted(self, things: Sequence[T], fields: Mapping[str, Getter]) -> Sequence[T]:
        """By `sort`, descending with a `-`; nulls first."""
        sort = self.query.get("sort", "")
        if not sort:
            return things
        getter = fields.get(sort.removeprefix("-"))
        if getter is None:
            raise Refused(400, error("Invalid sort attribute"))

        def key(thing: T) -> tuple[bool, Any]:
            value = getter(thing)
            return (value is not None, value if value is not None else 0)

        return sorted(things, key=key, reverse=sort.startswith("-"))

    # -- pages --------------------------------------------------------------------------------------------------------

    def pagelen(self, most: int) -> int:
        """A page that is too large is an error (docs/bitbucket-api.md, "Paging")."""
        text = self.query.get("pagelen", "10")
        if not text.isdecimal() or not 1 <= int(text) <= most:
            raise Refused(400, error("Invalid pagelen"))
        return int(text)

    def page(self, things: Sequence[T], render: Render[T], *, most: int = 100, next_drops: Sequence[str] = ()) -> bytes:
        """A page by number: rows shift between pages when the list changes (docs/bitbucket-api.md, "Paging")."""
        pagelen, text = self.pagelen(most), self.query.get("page", "1")
        if not text.isdecimal() or not int(text):
            raise Refused(400, error("Invalid page"))
        page = int(text)
        start = (page - 1) * pagelen
        envelope: Json = {"pagelen": pagelen, "size": len(things), "page": page}
        if start + pagelen < len(things):
            following = 1 if self.faults.pages_in_circles else page + 1
            envelope["next"] = self.next_url({"page": str(following)}, next_drops)
        if page > 1:
            envelope["previous"] = self.next_url({"page": str(page - 1)}, next_drops)
        return self._envelope(things[start : start + pagelen], render, envelope)

    def cursor_page(self, things: Sequence[T], render: Render[T], pagelen: int, following: dict[str, str]) -> bytes:
        """A page of an iterator: without size and number, with an opaque `next`."""
        envelope: Json = {"pagelen": pagelen}
        if following:
            circling = {name: self.query.get(name, "") for name in following}
            envelope["next"] = self.next_url(circling if self.faults.pages_in_circles else following)
        return self._envelope(things, render, envelope)

    def next_url(self, changed: dict[str, str], drops: Sequence[str] = ()) -> str:
        kept = [(k, v) for k, v in self.query.multi_items() if k not in changed and k not in drops]
        origin, slash, path = self.url.partition("/2.0")
        if self.faults.next_origin:
            origin = self.faults.next_origin
        return f"{origin}{slash}{quote(path, safe='/')}?{urlencode([*kept, *changed.items()])}"

    def _envelope(self, things: Sequence[T], render: Render[T], envelope: Json) -> bytes:
        selection = self.selection
        below = selection.below("values")
        parts = [encode({name: value})[1:-1] for name, value in envelope.items() if selection.shows(name)]
        if selection.shows("values"):
            parts.insert(0, b'"values":[' + b",".join([render(thing, below) for thing in things]) + b"]")
        return b"{" + b",".join(parts) + b"}"


def write_cursor(*parts: object) -> str:
    """An opaque position."""
    return base64.urlsafe_b64encode(json.dumps(parts).encode()).decode().rstrip("=")


def read_cursor(text: str, length: int) -> list[Any]:
    """The parts of a cursor; a page number is an invalid page here (docs/bitbucket-api.md, "Paging")."""
    try:
        parts = json.loads(base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True))
    except (binascii.Error, ValueError):
        parts = None
    if not isinstance(parts, list) or len(parts) != length:
        raise Refused(400, error("Invalid page"))
    return parts
