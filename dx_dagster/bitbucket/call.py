"""One request of a caller's, through all its tries."""

import json
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol, TypeAlias

import httpx
import orjson

from dx_dagster.bitbucket.credentials import Credential
from dx_dagster.bitbucket.errors import Forbidden, NotFound, RateLimited, Unavailable
from dx_dagster.bitbucket.origin import Params
from dx_dagster.bitbucket.retries import Schedule, Transient

Json: TypeAlias = Any


class Requester(Protocol):
    """What the pagers need: a client, or a client held to one credential."""

    async def request(
        self,
        method: str,
        path: str,
        *,
        params: Params | None = None,
        json: Json = None,
        data: Params | None = None,
        attempts: int | None = None,
        idempotent: bool | None = None,
    ) -> Json: ...

    def now(self) -> datetime:
        """The time by which answers are dated."""
        ...


@dataclass
class Call:
    """One request of the caller's, through all its tries; `lost` counts those whose answer did not come in time.

    `tried` are the credentials that need not be asked, `blind` those of them that were told they may not see this.
    """

    method: str
    url: httpx.URL
    schedule: Schedule
    json: Json = None
    data: Params | None = None
    idempotent: bool = True
    only: Credential | None = None
    probing: bool = False
    tried: set[int] = field(default_factory=set)
    blind: set[int] = field(default_factory=set)
    refusal: Forbidden | NotFound | None = None
    limited: RateLimited | None = None
    redirects: int = 0
    lost: int = 0

    @property
    def path(self) -> str:
        return self.url.raw_path.decode("ascii").partition("?")[0]

    def failed(self, how: str) -> Unavailable:
        return Unavailable(f"{self.method} {self.path} {how}", method=self.method, path=self.path)

    def refuse(self, credential: Credential, error: Forbidden | NotFound) -> None:
        """Tokens differ in what they see: the others may try, once each, before this error is the caller's."""
        self.tried.add(credential.id)
        if error.status != httpx.codes.UNAUTHORIZED:  # which one resource answers now and then, to anybody
            self.blind.add(credential.id)
        self.refusal = self.refusal or error


def body_of(call: Call, response: httpx.Response) -> Json:
    """The JSON, whatever the content type claims.

    Raises:
        Transient: it is cut short, or no JSON (a gateway's HTML page), and asking again may help.
    """
    if not response.content and call.method != "GET":
        return None
    try:
        body = _decoded(response.content)
    except (ValueError, RecursionError):
        body = None
    if isinstance(body, dict | list):
        return body
    failure = call.failed(f"answered {response.status_code} with something that is not JSON")
    failure.status = response.status_code
    raise Transient(failure) if call.idempotent else failure


def _decoded(content: bytes) -> Any:
    try:
        return orjson.loads(content)
    except orjson.JSONDecodeError:
        # Half a surrogate pair, which orjson refuses, is no reason to lose a page.
        return json.loads(content)
