"""One origin, one pool of credentials, bounded patience: every request to Bitbucket goes through here."""

import logging
import time
from collections import Counter
from dataclasses import dataclass
from datetime import datetime, timedelta
from types import TracebackType
from typing import Self

import anyio
import httpx
from tenacity import AsyncRetrying, retry_if_exception_type

from dx_dagster.bitbucket import transport
from dx_dagster.bitbucket.call import Call, Json, body_of
from dx_dagster.bitbucket.concurrency import AdaptiveLimiter, Slot
from dx_dagster.bitbucket.credentials import Credential, CredentialAuth
from dx_dagster.bitbucket.endpoints import kind_of
from dx_dagster.bitbucket.errors import (
    BitbucketError,
    Forbidden,
    NotFound,
    RateLimited,
    Unauthorized,
    Unavailable,
    from_response,
)
from dx_dagster.bitbucket.origin import Origin, Params
from dx_dagster.bitbucket.pool import CredentialPool, Grant, Rest
from dx_dagster.bitbucket.rate_limit_headers import Hints, moment, read
from dx_dagster.bitbucket.retries import TRANSIENT, Hope, Retries, Schedule, Timeouts, Transient
from dx_dagster.bitbucket.visibility import Sight
from dx_dagster.bitbucket.wording import clause
from dx_dagster.clock import Clock

_log = logging.getLogger(__name__)

_MOST_REDIRECTS = 5
_FOR_ANOTHER_OPINION = 60.0  # seconds; most of what one credential is refused the others are refused too
_IDEMPOTENT = frozenset({"GET", "HEAD", "PUT", "DELETE"})
_SENT_NOTHING = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)
_REDIRECTS = frozenset({301, 302, 303, 307, 308})


class BitbucketClient:
    """Use it as an async context manager. Paths are below the base URL; links must be the API's own.

    `requests` counts what was sent, tries and redirects included; `requests_by_kind` by kind of endpoint.
    `probe_path` is something cheap that every good credential can ask, to tell a dead credential from a resource that
    answers 401 to a living one. `clock` dates what is asked; the host's does only where no answer is stored.
    """

    def __init__(
        self,
        base_url: str,
        pool: CredentialPool,
        *,
        probe_path: str | None = None,
        max_in_flight: int = 16,
        timeouts: Timeouts | None = None,
        retries: Retries | None = None,
        clock: Clock | None = None,
    ) -> None:
        self.pool = pool
        self.max_in_flight = max_in_flight
        self.limiter = AdaptiveLimiter(max_in_flight)
        self.now = (clock or Clock.of_host()).now
        self.requests = 0
        self.requests_by_kind: Counter[str] = Counter()
        self._origin = Origin(base_url)
        self._probe_path = probe_path
        self._timeouts = timeouts or Timeouts()
        self._hope = Hope(self._timeouts)
        self._retries = retries or Retries()
        self._sight = Sight()
        self._last_date: tuple[str | None, datetime] | None = None
        self._http = transport.build(self._timeouts, max_in_flight=max_in_flight, encrypted=self._origin.encrypted)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with transport.hushed(), anyio.CancelScope(shield=True):
            await self._http.aclose()

    def ahead(self) -> timedelta | None:
        """How far the service's clock, as the last answer's `Date` tells it to the second, is ahead of `now`."""
        date, answered_at = self._last_date or (None, None)
        told = moment(date)
        return told - answered_at if told and answered_at else None

    def using(self, credential: Credential, patience: float | None = None) -> "PinnedClient":
        """This client held to one credential: to verify it, or for a listing that differs by who asks.

        `patience`: as that of `Retries`, for its requests.
        """
        return PinnedClient(self, credential, patience)

    async def get(
        self,
        path: str,
        params: Params | None = None,
        *,
        attempts: int | None = None,
        credential: Credential | None = None,
    ) -> Json:
        """As `request`."""
        return await self.request("GET", path, params=params, attempts=attempts, credential=credential)

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
        credential: Credential | None = None,
        patience: float | None = None,
    ) -> Json:
        """The JSON (object or array) of the answer; None for an empty answer to anything but GET.

        A request that is not `idempotent` (default: POST and PATCH) is not sent again once it may have been received.

        Raises:
            BitbucketError: see `errors` for the tree.
        """
        call = Call(
            method=method,
            url=self._origin.resolve(path, params),
            schedule=Schedule(self._retries, attempts, patience),
            json=json,
            data=data,
            idempotent=method in _IDEMPOTENT if idempotent is None else idempotent,
            only=credential,
        )
        if credential is None:
            call.tried = self._sight.blind(self._origin.kind_path(call.url), self.pool.usable)
        return await self._run(call)

    async def _run(self, call: Call) -> Json:
        retrying = AsyncRetrying(
            retry=retry_if_exception_type(Transient), stop=call.schedule.stop, wait=call.schedule.wait, reraise=True
        )
        try:
            return await retrying(self._try, call)
        except Transient as transient:
            error, tries = transient.error, retrying.statistics["attempt_number"]
        # Raised out here, so that no httpx exception, which holds the request, hangs on to it as its context.
        error.args = (f"{error.args[0]} ({tries} {'tries' if tries > 1 else 'try'})",)
        raise error

    async def _try(self, call: Call) -> Json:
        """Until there is an answer that counts; rests, other credentials and redirects are no failures."""
        while True:
            async with self.limiter.slot() as slot:
                # A grant is taken with the slot in hand: one that waited for a slot might be limited by then.
                taken = await self.pool.take(call.only, call.tried)
                response = await self._send(call, taken, slot) if isinstance(taken, Grant) else None
            if isinstance(taken, Rest):
                await self._rest(call, taken)
            elif taken is None or response is None:
                raise call.refusal or call.failed("was refused to every credential")
            elif await self._settles(call, taken, response):
                return body_of(call, response)

    async def _rest(self, call: Call, rest: Rest) -> None:
        if call.refusal and call.schedule.rested + rest.seconds > _FOR_ANOTHER_OPINION:
            raise call.refusal
        if call.schedule.rested + rest.seconds > call.schedule.patience:
            error = call.limited or RateLimited(
                f"{call.method} {call.path} was not sent: {rest.reason}", method=call.method, path=call.path
            )
            error.retry_after = rest.seconds
            raise error
        call.schedule.rested += await self.pool.rest(rest)

    async def _send(self, call: Call, grant: Grant, slot: Slot) -> httpx.Response:
        """One exchange with the server, body and all.

        Raises:
            Transient: there is no whole answer, and asking again may help.
        """
        kind = kind_of(self._origin.kind_path(call.url))
        self.requests += 1
        self.requests_by_kind[kind] += 1
        try:
            response, failure = await self._exchange(call, grant, kind)
        finally:
            await self.pool.settle(grant)
        if response is None:
            self.limiter.overloaded(slot)
            raise failure or call.failed("failed")
        _log.debug("%s %s %d", call.method, call.path, response.status_code)
        self._last_date = response.headers.get("date"), self.now()
        hints = read(response.headers)
        await self._tell_pool(grant, response.status_code, hints)
        if response.status_code in TRANSIENT or response.status_code == httpx.codes.TOO_MANY_REQUESTS:
            self.limiter.overloaded(slot)
        else:
            self.limiter.succeeded(kind, time.monotonic() - slot.began)
        return response

    async def _exchange(self, call: Call, grant: Grant, kind: str) -> tuple[httpx.Response | None, Exception | None]:
        """The answer or what to raise for its absence, free of the httpx exception, which holds request and headers."""
        request = self._http.build_request(call.method, call.url, json=call.json, data=call.data)
        again = call.idempotent and not call.schedule.is_last
        bound = self._hope.seconds(kind, call.lost) if again else self._timeouts.total
        began = time.monotonic()
        try:
            with transport.hushed(), anyio.fail_after(bound):
                response = await self._http.send(request, auth=CredentialAuth(grant.credential))
        except httpx.RequestError as error:
            failure = call.failed(f"failed: {type(error).__name__}: {grant.credential.redact(str(error))}".rstrip(": "))
            passing = call.idempotent or isinstance(error, _SENT_NOTHING)
        except TimeoutError:
            call.lost += 1
            failure = call.failed(f"was not answered in full within {bound:g} s")
            passing = call.idempotent
        else:
            self._hope.came(kind, time.monotonic() - began)
            return response, None
        return None, Transient(failure) if passing else failure

    async def _tell_pool(self, grant: Grant, status: int, hints: Hints) -> None:
        if status == httpx.codes.TOO_MANY_REQUESTS:
            await self.pool.limited(grant, hints.retry_after)
        elif status not in TRANSIENT and status != httpx.codes.UNAUTHORIZED:
            await self.pool.answered(grant, hints)

    async def _settles(self, call: Call, grant: Grant, response: httpx.Response) -> bool:
        """Whether the answer is the caller's; False where the request goes on, with another credential or elsewhere.

        Raises:
            Transient: asking again may help.
            BitbucketError: it will not.
        """
        if response.is_success:
            if call.blind:
                self._sight.learn(self._origin.kind_path(call.url), call.blind)
            return True
        if response.status_code in _REDIRECTS and transport.LOCATION in response.headers:
            self._follow(call, response)
            return False
        error = from_response(response, grant.credential.redact)
        if isinstance(error, RateLimited):
            call.limited = error
        elif isinstance(error, Unauthorized):
            await self._question(call, grant, error)
        elif isinstance(error, Forbidden) or (isinstance(error, NotFound) and self._may_be_hidden(error)):
            call.refuse(grant.credential, error)
        elif response.status_code in TRANSIENT and call.idempotent:
            raise Transient(error, read(response.headers).retry_after)
        else:
            raise error
        return False

    def note_visibility(self, *, alike: bool) -> None:
        """Sets whether all credentials see the same repositories: then a 404 of one is a 404 of all."""
        self.pool.alike = alike

    def _may_be_hidden(self, error: NotFound) -> bool:
        """Bitbucket has said 404 instead of 403 of what a token may not see (badges/shields, pull 8520)."""
        return not self.pool.alike and not error.revisions

    def _follow(self, call: Call, response: httpx.Response) -> None:
        call.redirects += 1
        if call.redirects > _MOST_REDIRECTS:
            raise call.failed(f"was redirected more than {_MOST_REDIRECTS} times")
        if call.method != "GET":
            # Browsers would turn it into a GET; nothing in this API asks for that.
            raise call.failed("was redirected, which only a GET may be")
        call.url = self._origin.redirected(call.url, response.headers[transport.LOCATION])

    async def _question(self, call: Call, grant: Grant, error: Unauthorized) -> None:
        """A 401: is the credential dead, or is this a resource that answers so to a living one (diffs, activity)?"""
        if call.probing:
            raise error
        async with self.pool.doubt(grant.credential):
            if self.pool.is_out(grant.credential):
                return
            if not self.pool.vouched(grant) and await self._is_dead(grant.credential):
                await self.pool.take_out(grant.credential, error.message or "Bitbucket answered 401")
                return
        refusal = Forbidden(
            f"{clause(error.args[0])}, to a credential that is good elsewhere",
            method=error.method,
            path=error.path,
            status=error.status,
            message=error.message,
        )
        call.refuse(grant.credential, refusal)

    async def _is_dead(self, credential: Credential) -> bool:
        """Ask for something that every good credential may see.

        Raises:
            Unavailable: nobody can tell.
            RateLimited: likewise, for too long.
        """
        if self._probe_path is None:
            return True
        url = self._origin.resolve(self._probe_path)
        try:
            await self._run(Call("GET", url, Schedule(self._retries), only=credential, probing=True))
        except Unauthorized:
            return True
        except (Unavailable, RateLimited):
            raise
        except BitbucketError:
            return False  # refused or not found, but known
        return False


@dataclass(frozen=True)
class PinnedClient:
    """A `BitbucketClient` held to one credential; see `BitbucketClient.using`."""

    client: BitbucketClient
    credential: Credential
    patience: float | None = None

    def now(self) -> datetime:
        return self.client.now()

    async def get(self, path: str, params: Params | None = None, *, attempts: int | None = None) -> Json:
        return await self.request("GET", path, params=params, attempts=attempts)

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
    ) -> Json:
        return await self.client.request(
            method,
            path,
            params=params,
            json=json,
            data=data,
            attempts=attempts,
            idempotent=idempotent,
            credential=self.credential,
            patience=self.patience,
        )
