"""Tokens with their scopes, and the rate limit of their rolling hour."""

import base64
import binascii
import time
from collections import deque
from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from hashlib import sha256

from dx_dagster.sandbox.answers import Refused, error
from dx_dagster.sandbox.repositories import HostedRepository
from dx_dagster.sandbox.world import World

# Scopes of an access token, and what each brings along. An API token's scopes bring nothing along.
IMPLIED = {
    "pullrequest": {"repository"},
    "pullrequest:write": {"pullrequest", "repository", "repository:write"},
    "repository:write": {"repository"},
    "repository:admin": set[str](),
    "pipeline:write": {"pipeline"},
    "project:admin": {"project"},
}
ACCESS_SCOPES = frozenset({"account", "project", "repository", "pullrequest", "pipeline", "webhook"})
API_SCOPES = frozenset(
    f"{verb}:{thing}:bitbucket"
    for verb, thing in (
        *(
            ("read", thing)
            for thing in ("repository", "pullrequest", "pipeline", "workspace", "user", "project", "webhook")
        ),
        ("write", "webhook"),
        ("delete", "webhook"),
    )
)
# What an operation needs: the scope of an access token, those of an API token.
Need = tuple[str | None, tuple[str, ...]]
NEEDS: dict[str, Need] = {
    "repository": ("repository", ("read:repository:bitbucket",)),
    "pullrequest": ("pullrequest", ("read:pullrequest:bitbucket",)),
    "pipeline": ("pipeline", ("read:pipeline:bitbucket",)),
    "members": ("account", ("read:workspace:bitbucket",)),
    "workspace": (None, ("read:workspace:bitbucket",)),
    "user": ("account", ("read:user:bitbucket",)),
    "webhook": ("webhook", ("read:webhook:bitbucket",)),
    "webhook:write": ("webhook", ("read:webhook:bitbucket", "write:webhook:bitbucket")),
    "webhook:delete": ("webhook", ("delete:webhook:bitbucket",)),
}


@dataclass(eq=False)
class Token:
    """A secret and the scopes, workspaces and repositories that it opens.

    Attributes:
        kind: "workspace" for an access token (sent as Bearer), "api" for a person's API token (Basic, with `email`).
        scopes: None takes every scope an importer can want.
        workspaces: slugs or uuids that it sees; None is all there are.
        repositories: slugs or uuids that it may enter; the others are listed and answer 403. None is all.
        shown: slugs or uuids that it is told of; the others are not listed and answer 404. None is all.
        filters_members: what a filter of members by e-mail address answers: the members ("yes"), 403 ("forbidden"), 400
            ("invalid"), the members without their addresses ("unseen"), or all members ("ignored"). The default is
            "yes" for access tokens and "forbidden" for API tokens, as if their persons were no administrators.
        sees_nothing: lost its access: the list of repositories is empty, each of them answers 404. May be set any time.
        revoked: likewise.
    """

    secret: str = field(repr=False)
    kind: str = "workspace"
    email: str | None = None
    scopes: Collection[str] | None = None
    workspaces: Collection[str] | None = None
    repositories: Collection[str] | None = None
    shown: Collection[str] | None = None
    label: str = ""
    filters_members: str = ""
    sees_nothing: bool = False
    revoked: bool = False

    def __post_init__(self) -> None:
        if self.kind not in {"workspace", "api"} or (self.kind == "api") != (self.email is not None):
            raise ValueError('kind must be "workspace", or "api" with an email')
        self.filters_members = self.filters_members or ("forbidden" if self.kind == "api" else "yes")
        self.label = self.label or self.email or f"token-{sha256(self.secret.encode()).hexdigest()[:6]}"

    @property
    def account(self) -> str:
        """The budget of a request: the access token's own, or that of the API token's account."""
        return f"user {self.email}" if self.email else f"token {self.secret}"

    def granted(self) -> frozenset[str]:
        if self.kind == "api":
            return API_SCOPES if self.scopes is None else frozenset(self.scopes)
        scopes = set(ACCESS_SCOPES if self.scopes is None else self.scopes)
        return frozenset(scopes.union(*(IMPLIED.get(scope, set()) for scope in scopes)))

    def opens(self, world: World) -> bool:
        return self.workspaces is None or any(world.is_called(name) for name in self.workspaces)

    def is_told_of(self, repository: HostedRepository) -> bool:
        return not self.sees_nothing and _is_among(repository, self.shown)

    def may_enter(self, repository: HostedRepository) -> bool:
        return _is_among(repository, self.repositories)

    def check(self, need: str) -> None:
        """Raises a 403 that names the required and the granted scopes (docs/bitbucket-api.md, "Errors")."""
        access, api = NEEDS[need]
        required = list(api) if self.kind == "api" else [access] if access else []
        granted = self.granted()
        if not granted.issuperset(required):
            raise lacks(required, sorted(granted))


def _is_among(repository: HostedRepository, names: Collection[str] | None) -> bool:
    return names is None or bool({repository.slug, repository.uuid} & set(names))


def lacks(required: list[str], granted: list[str]) -> Refused:
    message = "Your credentials lack one or more required privilege scopes."
    return Refused(403, error(message, detail={"required": required, "granted": granted}))


def find_token(authorization: str | None, tokens: list[Token]) -> Token:
    """The token of an Authorization header: access tokens as Bearer, API tokens as Basic, never the other way round."""
    scheme, _, value = (authorization or "").partition(" ")
    for token in tokens:
        if token.revoked:
            continue
        if token.kind == "workspace" and scheme.lower() == "bearer" and value == token.secret:
            return token
        if token.kind == "api" and scheme.lower() == "basic" and _decoded(value) == f"{token.email}:{token.secret}":
            return token
    raise Refused(401, error("Token is invalid, expired, or not supported for this endpoint."))


def _decoded(value: str) -> str | None:
    try:
        return base64.b64decode(value, validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        return None


@dataclass
class RateLimit:
    """The rate limit of each budget. All of it may be changed while the sandbox runs.

    Attributes:
        retry_after: None (no header), "seconds" or "date" (docs/bitbucket-api.md, "Rate limit").
        count_rejected: a request that answers 429 uses budget too (docs/bitbucket-api.md, "Not established").
        separate_hooks: webhook endpoints draw on a budget of their own, as the documentation says.
    """

    hourly_limit: int = 100_000
    window: float = 3600.0
    retry_after: str | None = None
    count_rejected: bool = False
    separate_hooks: bool = False
    spent: dict[str, deque[float]] = field(default_factory=dict, repr=False)

    def spend(self, token: Token, resource: str) -> dict[str, str]:
        """Counts one request; returns the headers of the rate limit, which only access tokens get."""
        key = f"{token.account} {resource if self.separate_hooks else ''}"
        spent, now = self.spent.setdefault(key, deque()), time.monotonic()
        while spent and spent[0] <= now - self.window:
            spent.popleft()
        over = len(spent) >= self.hourly_limit
        if not over or self.count_rejected:
            spent.append(now)
        headers = {}
        if token.kind == "workspace":
            near = len(spent) > 0.8 * self.hourly_limit
            headers = {
                "X-RateLimit-Limit": str(self.hourly_limit),
                "X-RateLimit-Resource": resource,
                "X-RateLimit-NearLimit": str(near).lower(),
            }
        if over:
            wait = (spent[len(spent) - self.hourly_limit] + self.window - now) if self.hourly_limit else self.window
            raise Refused(429, TOO_MANY, headers | self.retry_header(wait), content_type="text/plain")
        return headers

    def retry_header(self, seconds: float) -> dict[str, str]:
        if self.retry_after == "seconds":
            return {"Retry-After": str(int(seconds) + 1)}
        if self.retry_after == "date":
            moment = datetime.now(UTC) + timedelta(seconds=int(seconds) + 1)
            return {"Retry-After": format_datetime(moment, usegmt=True)}
        return {}


TOO_MANY = b"Rate limit for this resource has been exceeded"
