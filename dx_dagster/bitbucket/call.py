"""One API call, through all its attempts."""

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
    """What paging needs: a client, or a client pinned to one credential."""

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
    """One API call, through all its attempts.

    Attributes:
        only: the one credential that may send it.
        probing: it only tests a credential.
        spare: it is sent from what the budgets have to spare.
        tried: ids of the credentials that need not try again.
        blind: ids of those among them that were refused.
        refusal: the first refusal, raised when every credential was refused.
        limited: the last 429.
        lost: attempts that timed out.
    """

    method: str
    url: httpx.URL
    schedule: Schedule
    json: Json = None
    data: Params | None = None
    idempotent: bool = True
    only: Credential | None = None
    probing: bool = False
    spare: bool = False
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
        """Lets each other credential try once before the caller gets this error: their access differs."""
        self.tried.add(credential.id)
        if error.status != httpx.codes.UNAUTHORIZED:  # single resources answer 401 now and then, to every credential
            self.blind.add(credential.id)
        self.refusal = self.refusal or error


def body_of(call: Call, response: httpx.Response) -> Json:
    """Parses the body as JSON, whatever its content type.

    Raises:
        Transient: it is cut short or not JSON (a gateway's HTML page), and a retry may help.
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
        # orjson refuses half a surrogate pair; json accepts it, and the page is not lost.
        return json.loads(content)
