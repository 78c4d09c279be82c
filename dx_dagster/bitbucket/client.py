"""The client that sends every request to Bitbucket: one origin, one pool of credentials, bounded waiting."""

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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
    Undecided,
    from_response,
)
from dx_dagster.bitbucket.origin import Origin, Params
from dx_dagster.bitbucket.pool import CredentialPool, Grant, Rest
from dx_dagster.bitbucket.rate_limit_headers import Hints, moment, read
from dx_dagster.bitbucket.retries import TRANSIENT, AdaptiveTimeout, Retries, Schedule, Timeouts, Transient
from dx_dagster.bitbucket.visibility import Visibility
from dx_dagster.bitbucket.wording import clause
from dx_dagster.clock import Clock
from dx_dagster.telemetry import spans

_log = logging.getLogger(__name__)

_MOST_REDIRECTS = 5
_FOR_ANOTHER_OPINION = 60.0  # seconds; most of what one credential is refused the others are refused too
_AT_ONCE = (1, 0.0)  # attempts, and seconds of patience
_IDEMPOTENT = frozenset({"GET", "HEAD", "PUT", "DELETE"})
_SENT_NOTHING = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)
_REDIRECTS = frozenset({301, 302, 303, 307, 308})


class BitbucketClient:
    """Sends requests with the credentials of a pool; an async context manager.

    Paths are relative to the base URL; absolute links must be of the same origin.

    `probe_path` is a cheap resource that every valid credential can read. It distinguishes an invalid credential from a
    resource that answers 401 to a valid one. `clock` dates the requests; the host's clock will do only where no answer
    is stored.

    Attributes:
        requests: requests sent, retries and redirects included.
        requests_by_kind: the same, by kind of endpoint.
        answers: the same, by id of the credential and status of the answer, `none` where there was none.
    """

    def __init__(
        self,
        base_url: str,
        pool: CredentialPool,
        *,
        probe_path: str | None = None,
        max_in_flight: int = 32,
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
        self._calls: set[Callable[[], None]] = set()
        self.answers: Counter[tuple[int, str]] = Counter()
        self._origin = Origin(base_url)
        self._probe_path = probe_path
        self._timeouts = timeouts or Timeouts()
        self._adaptive_timeout = AdaptiveTimeout(self._timeouts)
        self._retries = retries or Retries()
        self._patience: float | None = None
        self._visibility = Visibility()
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
        """How far Bitbucket's clock is ahead of `now`, by the `Date` header of the last response, to the second."""
        date, answered_at = self._last_date or (None, None)
        theirs = moment(date)
        return theirs - answered_at if theirs and answered_at else None

    @contextmanager
    def calling(self, call: Callable[[], None]) -> Iterator[None]:
        """Calls `call` before each request is sent and once it is counted, until the end of the block."""
        self._calls.add(call)
        try:
            yield
        finally:
            self._calls.discard(call)

    def wait_at_most(self, seconds: float | None) -> None:
        """Bounds the wait of each later request for a budget; None for the bound of the client's `Retries`."""
        self._patience = seconds

    def using(self, credential: Credential, patience: float | None = None) -> "PinnedClient":
        """This client pinned to one credential: to verify it, or for a listing that differs by credential.

        `patience`: as in `Retries`, for its requests.
        """
        return PinnedClient(self, credential, patience)

    def sparing(self, credential: Credential | None = None) -> "SparingClient":
        """This client for what can wait: it never uses the last fifth of a budget, and neither waits nor retries.

        `credential`: pins it to one credential.
        """
        return SparingClient(self, credential)

    async def get(
        self,
        path: str,
        params: Params | None = None,
        *,
        attempts: int | None = None,
        credential: Credential | None = None,
    ) -> Json:
        """Sends a GET; see `request`."""
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
        spare: bool = False,
    ) -> Json:
        """Sends a request; returns the JSON of the response, or None for an empty response to anything but GET.

        A request that is not `idempotent` (default: POST and PATCH) is not retried once it may have been received.
        `spare`: see `sparing`.

        Raises:
            BitbucketError: see `errors` for the tree.
        """
        call = Call(
            method=method,
            url=self._origin.resolve(path, params),
            schedule=Schedule(self._retries, attempts, self._patience if patience is None else patience),
            json=json,
            data=data,
            idempotent=method in _IDEMPOTENT if idempotent is None else idempotent,
            only=credential,
            spare=spare,
        )
        if credential is None:
            call.tried = self._visibility.blind(self._origin.kind_path(call.url), self.pool.usable)
        return await self._run(call)

    async def _run(self, call: Call) -> Json:
        retrying = AsyncRetrying(
            retry=retry_if_exception_type(Transient), stop=call.schedule.stop, wait=call.schedule.wait, reraise=True
        )
        try:
            return await retrying(self._try, call)
        except Transient as transient:
            error, tries = transient.error, retrying.statistics["attempt_number"]
        # Raised outside of the except block: an httpx exception as its context would hold the request and its headers.
        error.args = (f"{error.args[0]} ({tries} {'tries' if tries > 1 else 'try'})",)
        raise error

    async def _try(self, call: Call) -> Json:
        """One attempt; waiting for a budget, another credential and a redirect do not count as attempts."""
        while True:
            async with self.limiter.slot() as slot:
                # The grant is taken after the slot: a grant that waited for a slot might be rate limited by then.
                taken = await self.pool.take(call.only, call.tried, spare=call.spare)
                response = await self._send(call, taken, slot) if isinstance(taken, Grant) else None
            if isinstance(taken, Rest):
                await self._rest(call, taken)
            elif taken is None or response is None:
                raise call.refusal or call.failed("was refused to every credential")
            elif await self._settles(call, taken, response):
                return body_of(call, response)

    async def _rest(self, call: Call, rest: Rest) -> None:
        if call.refusal and call.schedule.rested + rest.seconds > _FOR_ANOTHER_OPINION:
            raise _undecided(call.refusal) if isinstance(call.refusal, NotFound) else call.refusal
        if call.schedule.rested + rest.seconds > call.schedule.patience:
            error = call.limited or RateLimited(
                f"{call.method} {call.path} was not sent: {rest.reason}", method=call.method, path=call.path
            )
            error.retry_after = rest.seconds
            raise error
        call.schedule.rested += await self.pool.rest(rest)

    async def _send(self, call: Call, grant: Grant, slot: Slot) -> httpx.Response:
        """Sends the request once and reads the whole response.

        Raises:
            Transient: there is no complete response, and a retry may help.
        """
        kind = kind_of(self._origin.kind_path(call.url))
        self.requests += 1
        self.requests_by_kind[kind] += 1
        for counted in self._calls:
            counted()
        try:
            with spans.request_span(call.method, kind, call.url.host, call.path) as span:
                response, failure = await self._exchange(call, grant, kind)
                spans.answered(span, None if response is None else response.status_code)
        finally:
            await self.pool.settle(grant)
        self.answers[grant.credential.id, str(response.status_code) if response is not None else "none"] += 1
        if response is None:
            self.limiter.overloaded(slot)
            raise failure or call.failed("failed")
        _log.debug("%s %s %d", call.method, call.path, response.status_code)
        self._last_date = response.headers.get("date"), self.now()
        hints = read(response.headers)
        await self._tell_pool(grant, response.status_code, hints)
        if response.status_code in TRANSIENT:
            self.limiter.overloaded(slot)
        elif response.status_code == httpx.codes.TOO_MANY_REQUESTS:
            self.limiter.overloaded(slot, limited=True)
        else:
            self.limiter.succeeded(kind, time.monotonic() - slot.began)
        return response

    async def _exchange(self, call: Call, grant: Grant, kind: str) -> tuple[httpx.Response | None, Exception | None]:
        """The response, or the error to raise in place of an httpx exception, which holds the secret."""
        request = self._http.build_request(call.method, call.url, json=call.json, data=call.data)
        again = call.idempotent and not call.schedule.is_last
        bound = self._adaptive_timeout.seconds(kind, call.lost) if again else self._timeouts.total
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
            self._adaptive_timeout.answered(kind, time.monotonic() - began)
            # A response and its stream refer to one another: read bodies would stay until a garbage collection.
            response.stream = httpx.ByteStream(b"")
            return response, None
        return None, Transient(failure) if passing else failure

    async def _tell_pool(self, grant: Grant, status: int, hints: Hints) -> None:
        if status == httpx.codes.TOO_MANY_REQUESTS:
            await self.pool.limited(grant, hints.retry_after)
        elif status not in TRANSIENT and status != httpx.codes.UNAUTHORIZED:
            await self.pool.answered(grant, hints)

    async def _settles(self, call: Call, grant: Grant, response: httpx.Response) -> bool:
        """Whether the response ends the call; False where another credential or a redirect goes on with it.

        Raises:
            Transient: a retry may help.
            BitbucketError: a retry will not help.
        """
        if response.is_success:
            if call.blind:
                self._visibility.learn(self._origin.kind_path(call.url), call.blind)
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
        self.pool.compared(all_see_the_same=alike)

    def _may_be_hidden(self, error: NotFound) -> bool:
        """Whether another credential may see it: 404 has been met in place of 403 (badges/shields, pull 8520)."""
        return not self.pool.all_see_the_same and not error.revisions

    def _follow(self, call: Call, response: httpx.Response) -> None:
        call.redirects += 1
        if call.redirects > _MOST_REDIRECTS:
            raise call.failed(f"was redirected more than {_MOST_REDIRECTS} times")
        if call.method != "GET":
            # Browsers would follow with a GET; no endpoint of this API needs that.
            raise call.failed("was redirected, which only a GET may be")
        call.url = self._origin.redirected(call.url, response.headers[transport.LOCATION])

    async def _question(self, call: Call, grant: Grant, error: Unauthorized) -> None:
        """Handles a 401: takes the credential out, unless only this resource refuses it (diffs, activity)."""
        if call.probing:
            raise error
        async with self.pool.probing(grant.credential):
            if self.pool.is_out(grant.credential):
                return
            if not self.pool.vouched(grant) and await self._is_invalid(grant.credential, spare=call.spare):
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

    async def _is_invalid(self, credential: Credential, *, spare: bool) -> bool:
        """Requests a resource that every valid credential may read.

        Raises:
            Unavailable: there was no answer.
            RateLimited: the budget is used up for too long.
        """
        if self._probe_path is None:
            return True
        url = self._origin.resolve(self._probe_path)
        try:
            schedule = Schedule(self._retries, *(_AT_ONCE if spare else ()))
            await self._run(Call("GET", url, schedule, only=credential, probing=True, spare=spare))
        except Unauthorized:
            return True
        except (Unavailable, RateLimited):
            raise
        except BitbucketError:
            return False  # forbidden or not found: the credential itself was accepted
        return False


def _undecided(refusal: NotFound) -> Undecided:
    """The error where a credential that may see more cannot be tried: it deletes nothing.

    A 403 stays what it is: it closes a repository until the next sync asks again.
    """
    return Undecided(
        f"{clause(refusal.args[0])}, and no other credential has requests left",
        method=refusal.method,
        path=refusal.path,
        status=refusal.status,
        message=refusal.message,
    )


@dataclass(frozen=True)
class PinnedClient:
    """A `BitbucketClient` pinned to one credential; see `BitbucketClient.using`."""

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


@dataclass(frozen=True)
class SparingClient:
    """A `BitbucketClient` for what can wait; see `BitbucketClient.sparing`."""

    client: BitbucketClient
    credential: Credential | None = None

    def now(self) -> datetime:
        return self.client.now()

    async def get(self, path: str, params: Params | None = None) -> Json:
        return await self.request("GET", path, params=params)

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
        """Sends a request once; `attempts` are ignored.

        Raises:
            RateLimited: no budget has a request to spare.
        """
        del attempts
        once, patience = _AT_ONCE
        return await self.client.request(
            method,
            path,
            params=params,
            json=json,
            data=data,
            attempts=once,
            idempotent=idempotent,
            credential=self.credential,
            patience=patience,
            spare=True,
        )
