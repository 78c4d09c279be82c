"""The receiver of Bitbucket's webhooks: verifies the signature of a delivery and stores it.

Bitbucket's timeout is ten seconds. It repeats a delivery after a 5xx only, and guarantees neither order nor a single
delivery. Before the signature is verified, the payload only selects the connection whose secret to try.
"""

import asyncio
import hashlib
import json
import logging
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from dx_dagster.bitbucket.signatures import verify
from dx_dagster.clock import monotonic
from dx_dagster.frames.reading import Json, inner, number, record, text
from dx_dagster.http_limits import RareLines
from dx_dagster.settings import Settings
from dx_dagster.warehouse.connections.vault import Vault
from dx_dagster.warehouse.webhooks.intake import Delivery, InboxUnavailableError, Intake
from dx_dagster.warehouse.webhooks.secrets import Sender
from dx_dagster.webhooks.address import PATH, known_receiver

LARGEST_BODY = 1024 * 1024  # four times the documented maximum of Bitbucket
_LARGEST_HEADERS = 16 * 1024
# Bitbucket's timeout is ten seconds: the answer must arrive before it.
_SEND_WITHIN_SECONDS = 30.0
_STORE_WITHIN_SECONDS = 8.0
_KEPT_HEADERS = ("x-event-key", "x-hook-uuid", "x-request-uuid", "x-attempt-number", "content-type", "user-agent")
_LONGEST_HEADER = 200
_BIGGEST_NUMBER = 2**63 - 1
_UNAUTHORIZED = 401
_UNAVAILABLE = 503
_LINES_A_MINUTE = 10  # for each reason: unauthenticated clients cause them

_log = logging.getLogger(__name__)


@dataclass
class DeliveryRefusedError(Exception):
    """Why a delivery is not stored, and the status of the answer."""

    status: int
    reason: str
    workspace: str | None = None


def router(settings: Settings, url: str, observe: Callable[[int, float], None]) -> APIRouter:
    """The route of the receiver, for the database at `url`.

    `observe` is called with the status of each answer and the seconds that it took.

    Raises:
        VaultError: the settings hold no usable keys.
    """
    intake = Intake(url, Vault.of(settings), known_receiver(settings))
    lines = RareLines(_log, _LINES_A_MINUTE)

    @asynccontextmanager
    async def lifespan(_: object) -> AsyncIterator[None]:
        with suppress(InboxUnavailableError):  # opens the connection before the first delivery
            await intake.senders()
        intake.start_beating()
        yield
        await intake.close()

    async def receive(request: Request) -> Response:
        began = monotonic()
        answer = await answered(request)
        observe(answer.status_code, monotonic() - began)
        return answer

    async def answered(request: Request) -> Response:
        hook = request.headers.get("x-hook-uuid")
        try:
            body = await _body(request)
            async with asyncio.timeout(_STORE_WITHIN_SECONDS):
                await intake.store(await _verified(request, body, intake))
        except DeliveryRefusedError as refused:
            if refused.status == _UNAVAILABLE or intake.knows(hook):
                intake.lost()
            return _refuse(request, refused, lines)
        except (InboxUnavailableError, TimeoutError) as error:
            intake.lost()
            reason = str(error) or f"it was not stored within {_STORE_WITHIN_SECONDS:g} s"
            return _refuse(request, DeliveryRefusedError(_UNAVAILABLE, reason), lines)
        except ClientDisconnect:
            if intake.knows(hook):
                intake.lost()
            return _refuse(request, DeliveryRefusedError(400, "the connection ended before the body did"), lines)
        return JSONResponse({"ok": True})

    routes = APIRouter(lifespan=lifespan)
    routes.add_route(PATH, receive, methods=["POST"], include_in_schema=False)
    return routes


async def _body(request: Request) -> bytes:
    """The body as it was signed.

    Raises:
        DeliveryRefusedError: headers or body are too large, or arrive too slowly.
    """
    if sum(len(name) + len(value) for name, value in request.headers.raw) > _LARGEST_HEADERS:
        raise DeliveryRefusedError(431, f"the headers are larger than {_LARGEST_HEADERS} bytes")
    too_large = DeliveryRefusedError(413, f"the body is larger than {LARGEST_BODY} bytes")
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and int(announced) > LARGEST_BODY:
        raise too_large
    body = bytearray()
    try:
        async with asyncio.timeout(_SEND_WITHIN_SECONDS):
            async for chunk in request.stream():
                body += chunk
                if len(body) > LARGEST_BODY:
                    raise too_large
    except TimeoutError:
        raise DeliveryRefusedError(408, "the body did not arrive in time") from None
    return bytes(body)


async def _verified(request: Request, body: bytes, intake: Intake) -> Delivery:
    """The delivery, after its signature is verified.

    Raises:
        DeliveryRefusedError: no known sender has signed it, or it is malformed.
        InboxUnavailableError: the database does not answer.
    """
    received_at, asked_at = monotonic(), asyncio.get_running_loop().time()
    signature = request.headers.get("x-hub-signature")
    if not signature:
        raise DeliveryRefusedError(401, "it is not signed")
    payload = _payload(body)
    names, hook = list(dict.fromkeys(_names(payload))), request.headers.get("x-hook-uuid")
    sender = (await intake.senders()).find(names, hook)
    if sender is None and names and intake.is_unknown(names[0]):
        raise DeliveryRefusedError(404, "no connection has this workspace", names[0])
    if sender is None or not verify(body, signature, sender.secrets):
        # The connection or its secret may be newer than the cached senders.
        sender = (await intake.senders(newer_than=asked_at)).find(names, hook)
        if sender is None and names:
            intake.remember_unknown(names[0])
        try:
            sender = _signed_by(sender, names, body, signature)
        except DeliveryRefusedError as refused:
            # The hook may have been given another secret. Hooks that no sync has seen do not count.
            if refused.status == _UNAUTHORIZED and sender is not None and hook in {sender.hook, None}:
                await intake.rejected(sender)
            raise
    return _delivery(request, sender, payload, body.decode(), received_at)


def _signed_by(sender: Sender | None, names: Sequence[str], body: bytes, signature: str) -> Sender:
    workspace = names[0] if names else None
    if sender is None:
        raise DeliveryRefusedError(404, "no connection has this workspace", workspace)
    if not verify(body, signature, sender.secrets):
        if not sender.readable:
            raise DeliveryRefusedError(
                _UNAVAILABLE, "the secret of its connection cannot be decrypted: see DX_SECRET_KEYS", workspace
            )
        raise DeliveryRefusedError(401, "the signature does not match", workspace)
    return sender


def _payload(body: bytes) -> Json:
    """The body as JSON, whatever its content type."""
    try:
        payload = json.loads(body.decode(), parse_constant=_no_json)
    except (ValueError, RecursionError):
        raise DeliveryRefusedError(400, "it is not JSON") from None
    if not isinstance(payload, dict):
        raise DeliveryRefusedError(400, "it is not a JSON object")
    return payload


def _no_json(constant: str) -> Any:
    raise ValueError(constant)


def _names(payload: Json) -> Iterator[str]:
    """Names of the workspace in the payload: slug, uuid, first part of a repository's full name."""
    for holder in (record(payload, "repository"), record(payload, "project"), payload):
        for path in (("workspace", "slug"), ("workspace", "uuid"), ("full_name",), ("owner", "username")):
            if name := text(inner(holder, *path)):
                yield name.partition("/")[0]


def _delivery(request: Request, sender: Sender, payload: Json, body: str, received_at: float) -> Delivery:
    headers = {name: _short(request.headers[name]) for name in _KEPT_HEADERS if name in request.headers}
    attempt = headers.get("x-attempt-number", "")
    pull = number(inner(payload, "pullrequest", "id"))
    return Delivery(
        connection_id=sender.connection_id,
        workspace=sender.workspace,
        request_uuid=headers.get("x-request-uuid") or _fingerprint(headers, body),
        hook_uuid=headers.get("x-hook-uuid"),
        attempt_number=int(attempt) if attempt.isascii() and attempt.isdecimal() and len(attempt) < 6 else None,  # noqa: PLR2004
        event_key=headers.get("x-event-key") or "unnamed",
        repository_source_id=text(inner(payload, "repository", "uuid")),
        pull_number=pull if pull is not None and abs(pull) <= _BIGGEST_NUMBER else None,
        headers=headers,
        body=body,
        received_at=received_at,
    )


def _short(header: str) -> str:
    """A header value that fits the column; a hash keeps shortened values distinct."""
    storable = text(header) or ""
    if len(storable) <= _LONGEST_HEADER:
        return storable
    return f"{storable[: _LONGEST_HEADER - 65]} {hashlib.sha256(storable.encode()).hexdigest()}"


def _fingerprint(headers: dict[str, str], body: str) -> str:
    """Replaces a missing request id; all attempts of a delivery have the same one."""
    same = sorted(headers.items() - {("x-attempt-number", headers.get("x-attempt-number"))})
    return "sha256:" + hashlib.sha256(json.dumps([same, body]).encode()).hexdigest()


def _refuse(request: Request, refused: DeliveryRefusedError, lines: RareLines) -> Response:
    """Answers the refusal and logs it, without body and signature."""
    shown = {
        "workspace": refused.workspace,
        "event": request.headers.get("x-event-key"),
        "request": request.headers.get("x-request-uuid"),
    }
    details = " ".join(f"{name}={value[:80]!a}" for name, value in shown.items() if value)
    lines.warning(f"webhook refused with {refused.status}: {refused.reason}", details)
    ours = refused.status == _UNAVAILABLE  # what is wrong here is not for strangers
    return JSONResponse(
        {"ok": False, "error": "unavailable" if ours else refused.reason},
        status_code=refused.status,
        headers={"retry-after": "5"} if ours else None,
    )
