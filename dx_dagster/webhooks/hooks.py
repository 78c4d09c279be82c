"""Creates, compares, updates and removes webhooks at Bitbucket."""

import random
from collections.abc import Collection
from dataclasses import dataclass
from urllib.parse import urlsplit

from pydantic import SecretStr

from dx_dagster.bitbucket import (
    BitbucketClient,
    BitbucketError,
    Forbidden,
    Gone,
    NotFound,
    endpoints,
    numbered,
    sentence,
)
from dx_dagster.frames.reading import Json, text
from dx_dagster.importer import absence
from dx_dagster.settings import Settings, SettingsError, is_loopback
from dx_dagster.warehouse.database import Warehouse
from dx_dagster.warehouse.imported import repositories as stored
from dx_dagster.warehouse.webhooks import secrets
from dx_dagster.webhooks.payloads import UNDERSTOOD

PATH = "/webhooks/bitbucket"
DESCRIPTION = "dx-dagster"


class HooksRefusedError(Exception):
    """The credential may not manage webhooks; the message says what is missing and what to do."""


@dataclass(frozen=True)
class HookSubject:
    """The subject of a webhook: the workspace, or one of its repositories."""

    workspace: str
    repository: str | None = None
    slug: str | None = None

    def __str__(self) -> str:
        return f"repository {self.slug}" if self.repository else f"workspace {self.workspace}"


@dataclass(frozen=True)
class Hook:
    """A webhook at Bitbucket; `wrong` says how it differs from what it should be."""

    subject: HookSubject
    uuid: str
    url: str
    active: bool
    events: tuple[str, ...]
    wrong: tuple[str, ...] = ()


def address(settings: Settings) -> str:
    """The URL that webhooks deliver to.

    Raises:
        SettingsError: DX_PUBLIC_URL is missing or not usable.
    """
    url = (settings.public_url or "").rstrip("/")
    parts = urlsplit(url)
    if not parts.hostname or parts.scheme not in {"https", "http"}:
        raise SettingsError(
            "DX_PUBLIC_URL must be the address at which Bitbucket reaches this installation, such as "
            "https://dx.example.com; `dx-dagster serve` or `up` must answer behind it."
        )
    if parts.scheme == "http" and not is_loopback(parts.hostname):
        raise SettingsError("DX_PUBLIC_URL must begin with https: deliveries hold titles and texts of pull requests.")
    return url + PATH


async def subjects(warehouse: Warehouse, workspace: str, *, repositories: bool) -> list[HookSubject]:
    """The workspace, or each of its imported repositories."""
    if not repositories:
        return [HookSubject(workspace)]
    imported = await stored.imported(warehouse, workspace)
    return [HookSubject(workspace, one.source_id, one.slug) for one in imported]


async def find(client: BitbucketClient, subject: HookSubject, url: str | None, made: Collection[str]) -> list[Hook]:
    """Finds the webhooks of dx-dagster: those that deliver to `url`, and those that it has `made` (uuids).

    Without a `url`, their address is not compared.

    Raises:
        HooksRefusedError: the credential may not read webhooks.
    """
    endpoint = endpoints.hooks(subject.workspace, subject.repository)
    try:
        values = [value async for page in numbered(client, endpoint) for value in page.values]
    except (Forbidden, NotFound) as error:
        raise _refusal(subject, error) from None
    ours: list[Json] = [one for one in values if one.get("uuid") in made or (url and one.get("url") == url)]
    if not ours and absence.is_suspicious(stored=len(made), missing=len(made), listed=len(values)):
        ours = await _fetched_one_by_one(client, subject, made)
    return [_hook(subject, one, url) for one in ours]


async def _fetched_one_by_one(client: BitbucketClient, subject: HookSubject, made: Collection[str]) -> list[Json]:
    """Webhooks in `made` that exist though the list lacks them; most of `made` may be of other subjects."""
    values: list[Json] = []
    for uuid in random.sample(sorted(made), min(len(made), absence.MOST)):
        try:
            value = await client.get(endpoints.hook(subject.workspace, uuid, subject.repository).path)
        except (NotFound, Gone):
            continue
        except Forbidden as error:
            raise _refusal(subject, error) from None
        if isinstance(value, dict):
            values.append(value)
    return values


def _hook(subject: HookSubject, value: Json, url: str | None) -> Hook:
    events = tuple(event for event in value.get("events") or () if isinstance(event, str))
    theirs, active = text(value.get("url")) or "", value.get("active") is True
    wrong = [f"it delivers to {theirs}"] if url and theirs != url else []
    wrong += [] if active else ["it is switched off"]
    wrong += [] if value.get("secret_set") is not False else ["it does not sign"]
    if missing := [event for event in UNDERSTOOD if event not in events]:
        wrong.append(f"it does not send {', '.join(missing)}")
    return Hook(subject, str(value.get("uuid")), theirs, active, events, tuple(wrong))


async def install(
    client: BitbucketClient,
    warehouse: Warehouse,
    subject: HookSubject,
    url: str,
    *,
    made: Collection[str],
    secret: tuple[int, SecretStr],
) -> str:
    """Creates the webhook or updates the existing one; returns what it did.

    The secret is sent every time, because the API does not return it.

    Raises:
        HooksRefusedError: the credential may not manage webhooks.
    """
    existing = await find(client, subject, url, made)
    first = existing[0] if existing else None
    wanted = {
        "description": DESCRIPTION,
        "url": url,
        "active": True,
        "secret": secret[1].get_secret_value(),
        "events": sorted({*UNDERSTOOD, *(first.events if first else ())}),
    }
    try:
        if first is None:
            path = endpoints.hooks(subject.workspace, subject.repository).path
            answer = await client.request("POST", path, json=wanted)
        else:
            path = endpoints.hook(subject.workspace, first.uuid, subject.repository).path
            answer = await client.request("PUT", path, json=wanted)
        for duplicate in existing[1:]:
            await remove(client, duplicate)
    except (Forbidden, NotFound) as error:
        raise _refusal(subject, error) from None
    await secrets.given_to(warehouse, secret[0], str(answer.get("uuid")))
    if first is None:
        return "made"
    return f"mended: {'; '.join(first.wrong)}" if first.wrong else "as it should be"


async def remove(client: BitbucketClient, hook: Hook) -> None:
    """Deletes the webhook; a 404 is not an error.

    Raises:
        HooksRefusedError: the credential may not manage webhooks.
    """
    try:
        await client.request("DELETE", endpoints.hook(hook.subject.workspace, hook.uuid, hook.subject.repository).path)
    except NotFound:
        return
    except Forbidden as error:
        raise _refusal(hook.subject, error) from None


def _refusal(subject: HookSubject, error: BitbucketError) -> HooksRefusedError:
    missing = error.missing if isinstance(error, Forbidden) else ()
    if missing:
        what = f"The credential lacks the scope{'s' if len(missing) > 1 else ''} {', '.join(missing)}."
        return HooksRefusedError(
            f"{what} A workspace access token needs the scope webhook; an API token needs read:webhook:bitbucket, "
            "write:webhook:bitbucket and delete:webhook:bitbucket."
        )
    said = f"Bitbucket said: {sentence(error.message or str(error))}"
    if subject.repository:
        return HooksRefusedError(f"Hooks of {subject} belong to its administrators. {said}")
    return HooksRefusedError(
        f"Only owners of {subject} may manage its hooks, and this credential is of none. {said} With "
        "administrators' rights on repositories, put a hook on each: dx-dagster webhooks install "
        f"{subject.workspace} --repositories"
    )
