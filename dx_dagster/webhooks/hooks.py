"""The webhook of a workspace at Bitbucket: made, mended, compared with what it should be, and removed."""

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
    """Bitbucket does not let this credential manage the hooks; the message says what is missing and what to do."""


@dataclass(frozen=True)
class HookSubject:
    """What a hook hangs on: the workspace, or one of its repositories."""

    workspace: str
    repository: str | None = None
    slug: str | None = None

    def __str__(self) -> str:
        return f"repository {self.slug}" if self.repository else f"workspace {self.workspace}"


@dataclass(frozen=True)
class Hook:
    """A hook as Bitbucket has it, and what is wrong with it, in words."""

    subject: HookSubject
    uuid: str
    url: str
    active: bool
    events: tuple[str, ...]
    wrong: tuple[str, ...] = ()


def address(settings: Settings) -> str:
    """Where Bitbucket delivers.

    Raises:
        SettingsError: nobody has said where this installation is reached.
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
    """The workspace alone, or each of its repositories that is imported."""
    if not repositories:
        return [HookSubject(workspace)]
    imported = await stored.imported(warehouse, workspace)
    return [HookSubject(workspace, one.source_id, one.slug) for one in imported]


async def find(client: BitbucketClient, subject: HookSubject, url: str | None, made: Collection[str]) -> list[Hook]:
    """Our hooks: those with our address, and those that we have `made` (uuids), with an address of before perhaps.

    Without a `url` nobody can tell whether they deliver where they should.

    Raises:
        HooksRefusedError: the credential may not read hooks.
    """
    endpoint = endpoints.hooks(subject.workspace, subject.repository)
    try:
        values = [value async for page in numbered(client, endpoint) for value in page.values]
    except (Forbidden, NotFound) as error:
        raise _refusal(subject, error) from None
    ours: list[Json] = [one for one in values if one.get("uuid") in made or (url and one.get("url") == url)]
    if not ours and absence.is_suspicious(stored=len(made), missing=len(made), listed=len(values)):
        ours = await _asked_themselves(client, subject, made)
    return [_hook(subject, one, url) for one in ours]


async def _asked_themselves(client: BitbucketClient, subject: HookSubject, made: Collection[str]) -> list[Json]:
    """Hooks that we made and that no list holds, though they are there. Most of `made` may hang on other subjects."""
    found: list[Json] = []
    for uuid in random.sample(sorted(made), min(len(made), absence.MOST)):
        try:
            value = await client.get(endpoints.hook(subject.workspace, uuid, subject.repository).path)
        except (NotFound, Gone):
            continue
        except Forbidden as error:
            raise _refusal(subject, error) from None
        if isinstance(value, dict):
            found.append(value)
    return found


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
    """Makes the hook, or mends the one that is there; says which.

    The secret is sent every time, for Bitbucket never tells which one it has.

    Raises:
        HooksRefusedError: the credential may not.
    """
    found = await find(client, subject, url, made)
    first = found[0] if found else None
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
        for twin in found[1:]:
            await remove(client, twin)
    except (Forbidden, NotFound) as error:
        raise _refusal(subject, error) from None
    await secrets.given_to(warehouse, secret[0], str(answer.get("uuid")))
    if first is None:
        return "made"
    return f"mended: {'; '.join(first.wrong)}" if first.wrong else "as it should be"


async def remove(client: BitbucketClient, hook: Hook) -> None:
    """Deletes the hook; one that is gone is no error.

    Raises:
        HooksRefusedError: the credential may not.
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
