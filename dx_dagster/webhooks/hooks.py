"""Webhooks at Bitbucket: installs, repairs, checks and removes the hooks of a workspace or its repositories."""

import random
from collections.abc import Callable, Collection
from dataclasses import dataclass, field

from dx_dagster.bitbucket import (
    BitbucketClient,
    BitbucketError,
    Forbidden,
    NotFound,
    endpoints,
    fetch_object,
    numbered,
    sentence,
)
from dx_dagster.frames.reading import Json, text
from dx_dagster.importer import absence
from dx_dagster.settings import Settings
from dx_dagster.warehouse.connections.connections import StoredConnection
from dx_dagster.warehouse.database import Warehouse
from dx_dagster.warehouse.imported import repositories as stored
from dx_dagster.warehouse.webhooks import belief, secrets
from dx_dagster.webhooks import secret_rotation
from dx_dagster.webhooks.payloads import UNDERSTOOD
from dx_dagster.webhooks.secret_rotation import NumberedSecret

DESCRIPTION = "dx-dagster"


class HooksRefusedError(Exception):
    """The credential may not manage the hooks; the message names the missing scope or right."""


@dataclass(frozen=True)
class HookSubject:
    """The workspace or repository that a hook belongs to."""

    workspace: str
    repository: str | None = None
    slug: str | None = None

    def __str__(self) -> str:
        return f"repository {self.slug}" if self.repository else f"workspace {self.workspace}"


@dataclass(frozen=True)
class Hook:
    """A hook at Bitbucket; `wrong` lists its faults in words."""

    subject: HookSubject
    uuid: str
    url: str
    active: bool
    events: tuple[str, ...]
    wrong: tuple[str, ...] = ()


async def subjects(warehouse: Warehouse, workspace: str, *, repositories: bool) -> list[HookSubject]:
    """The workspace alone, or each of its imported repositories."""
    if not repositories:
        return [HookSubject(workspace)]
    imported = await stored.imported(warehouse, workspace)
    return [HookSubject(workspace, one.source_id, one.slug) for one in imported]


async def find(
    client: BitbucketClient, subject: HookSubject, url: str | None, made: Collection[str], *, confirm: bool = True
) -> list[Hook]:
    """The subject's dx-dagster hooks: those that deliver to `url`, and those whose uuid is in `made`.

    Without a `url`, the hooks' addresses are not checked. A list that lacks all of `made` is confirmed by requests for
    some of them, unless `confirm` is off.

    Raises:
        HooksRefusedError: the credential may not read hooks.
    """
    endpoint = endpoints.hooks(subject.workspace, subject.repository)
    try:
        values = [value async for page in numbered(client, endpoint, strict=True) for value in page.values]
    except (Forbidden, NotFound) as error:
        raise _refusal(subject, error) from None
    ours: list[Json] = [one for one in values if one.get("uuid") in made or (url and one.get("url") == url)]
    if not ours and confirm and absence.is_suspicious(stored=len(made), missing=len(made), listed=len(values)):
        ours = await _asked_themselves(client, subject, made)
    return [_hook(subject, one, url) for one in ours]


async def _asked_themselves(client: BitbucketClient, subject: HookSubject, made: Collection[str]) -> list[Json]:
    """Hooks of this installation that the list lacks. Most of `made` may belong to other subjects."""
    found: list[Json] = []
    for uuid in random.sample(sorted(made), min(len(made), absence.MOST)):
        try:
            value = await fetch_object(client, endpoints.hook(subject.workspace, uuid, subject.repository), "uuid")
        except NotFound:
            continue
        except Forbidden as error:
            raise _refusal(subject, error) from None
        found.append(value)
    return found


def _hook(subject: HookSubject, value: Json, url: str | None) -> Hook:
    events = tuple(event for event in value.get("events") or () if isinstance(event, str))
    theirs, active = text(value.get("url")) or "", value.get("active") is True
    wrong = [f"it delivers to {theirs}"] if url and theirs != url else []
    wrong += [] if active else ["it is inactive"]
    wrong += [] if value.get("secret_set") is not False else ["it has no secret"]
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
    secret: NumberedSecret,
) -> str:
    """Creates the hook, or repairs the existing one; returns which.

    The request always contains the secret: Bitbucket never returns a hook's secret.

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
        return "created"
    return f"repaired: {'; '.join(first.wrong)}" if first.wrong else "correct"


@dataclass
class Result:
    """What became of the hooks on all chosen subjects."""

    subjects: int = 0
    changed: int = 0
    refused: list[str] = field(default_factory=list)


Tell = Callable[[HookSubject, str], None]


async def install_all(
    settings: Settings,
    client: BitbucketClient,
    warehouse: Warehouse,
    connection: StoredConnection,
    url: str,
    *,
    repositories: bool,
    rotate: bool,
    tell: Tell,
) -> Result:
    """Installs the hook on each subject, with a new secret where `rotate` is on."""
    choose = secret_rotation.add if rotate else secret_rotation.current_or_new
    secret = await choose(settings, warehouse, connection.id)
    made = await secrets.hooks(warehouse, connection.id)
    result = Result()
    for subject in await subjects(warehouse, connection.workspace, repositories=repositories):
        result.subjects += 1
        try:
            tell(subject, await install(client, warehouse, subject, url, made=made, secret=secret))
        except HooksRefusedError as error:
            result.refused.append(str(error))
        else:
            result.changed += 1
    if not result.refused:
        await belief.given_secret(warehouse, connection.id)
    # A hook that could not be given the new secret still signs with the old one.
    if rotate and not result.refused:
        await secrets.retire(warehouse, connection.id, but=secret[0])
    return result


async def remove_all(
    client: BitbucketClient,
    warehouse: Warehouse,
    connection: StoredConnection,
    url: str | None,
    *,
    repositories: bool,
    tell: Tell,
) -> Result:
    """Removes the hooks of each subject; when none is left, the secrets expire after the grace period."""
    made = await secrets.hooks(warehouse, connection.id)
    result = Result()
    for subject in await subjects(warehouse, connection.workspace, repositories=repositories):
        result.subjects += 1
        try:
            for one in await find(client, subject, url, made):
                await remove(client, one)
                tell(subject, "removed")
                result.changed += 1
        except HooksRefusedError as error:
            result.refused.append(str(error))
    if not result.refused:
        await secrets.retire(warehouse, connection.id)
    return result


async def compare_all(
    client: BitbucketClient,
    warehouse: Warehouse,
    connection: StoredConnection,
    url: str | None,
    *,
    repositories: bool,
) -> list[tuple[HookSubject, list[Hook], str | None]]:
    """The hooks of each subject, and why they could not be read.

    Raises:
        HooksRefusedError: the credential may not read the workspace's hooks.
    """
    made = await secrets.hooks(warehouse, connection.id)
    found: list[tuple[HookSubject, list[Hook], str | None]] = []
    for subject in await subjects(warehouse, connection.workspace, repositories=repositories):
        try:
            found.append((subject, await find(client, subject, url, made), None))
        except HooksRefusedError as error:
            if subject.repository is None:
                raise
            found.append((subject, [], str(error)))
    return found


async def remove(client: BitbucketClient, hook: Hook) -> None:
    """Deletes the hook. A hook that no longer exists is no error.

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
            f"{what} A workspace access token needs the scope webhook; an Atlassian API token needs "
            "read:webhook:bitbucket, "
            "write:webhook:bitbucket and delete:webhook:bitbucket."
        )
    said = f"Bitbucket said: {sentence(error.message or str(error))}"
    if subject.repository:
        return HooksRefusedError(f"Only administrators of {subject} can manage its hooks. {said}")
    return HooksRefusedError(
        f"Only administrators of {subject} can manage its hooks. {said} With administrator rights on repositories, "
        f"install a hook on each: dx-dagster webhooks install {subject.workspace} --repositories"
    )
