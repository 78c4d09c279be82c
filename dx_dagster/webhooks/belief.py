"""Decides, at the start of a sync, whether the workspace's webhook tells every change.

A scheduled sync does not ask for what a believed webhook tells. `warehouse.webhooks.belief` holds what this rests on.
"""

from datetime import datetime, timedelta

from dx_dagster.bitbucket import BitbucketClient, BitbucketError, sentence
from dx_dagster.frames.reading import Json, inner, time
from dx_dagster.settings import Settings
from dx_dagster.warehouse.connections import connections
from dx_dagster.warehouse.database import Warehouse
from dx_dagster.warehouse.imported.marks import Pace
from dx_dagster.warehouse.webhooks import belief, secrets
from dx_dagster.warehouse.webhooks.belief import UntoldChange
from dx_dagster.webhooks import hooks, payloads
from dx_dagster.webhooks.address import known_receiver
from dx_dagster.webhooks.hooks import Hook, HooksRefusedError, HookSubject

_LOOK_HOLDS = timedelta(hours=3)


async def look(settings: Settings, client: BitbucketClient, warehouse: Warehouse, workspace: str) -> None:
    """Looks at the workspace's hook with one request, and settles whether deliveries are believed.

    Without a secret there is no webhook, and no request is made.
    """
    connection = await connections.find(warehouse, workspace)
    if connection is None:
        return
    if not await secrets.exists(warehouse, connection.id):
        await belief.forget(warehouse, connection.id)
        return
    await judge(warehouse, connection.workspace)
    hook, wrong = await _hook(settings, client, warehouse, connection.id, connection.workspace)
    await belief.settle(
        warehouse,
        connection.id,
        connection.workspace,
        hook=hook.uuid if hook else None,
        url=hook.url if hook else None,
        wrong=wrong,
    )


async def _hook(
    settings: Settings, client: BitbucketClient, warehouse: Warehouse, connection_id: int, workspace: str
) -> tuple[Hook | None, str | None]:
    """The workspace's hook, and what is wrong with it."""
    url = known_receiver(settings)
    if url is None:
        return None, "DX_PUBLIC_URL does not say where webhooks arrive"
    made = await secrets.hooks(warehouse, connection_id)
    try:
        found = await hooks.find(client, HookSubject(workspace), url, made, confirm=False)
    except HooksRefusedError:
        return None, "the credentials may not read the workspace's webhooks"
    except BitbucketError as error:
        return None, f"the webhook's settings could not be read ({sentence(str(error)).rstrip('.')})"
    right = [one for one in found if not one.wrong]
    if right:
        # A new hook at our address is the last in the list: one that this installation has made comes first.
        return min(right, key=lambda one: one.uuid not in made), None
    if found:
        return found[0], f"the webhook is not right: {'; '.join(found[0].wrong)}"
    return None, "the workspace has no webhook that delivers here"


async def pace(settings: Settings, warehouse: Warehouse, workspace: str) -> Pace:
    """The pace of a scheduled sync, after the look."""
    believed = await belief.read(warehouse, workspace)
    every = timedelta(seconds=settings.sync_every)
    # A run of some steps only, without the look, believes nothing.
    is_fresh = believed.looked_at is not None and warehouse.clock.now() - believed.looked_at < _LOOK_HOLDS
    return Pace(settings.pace, every, believed.vouched_from if is_fresh else None, believed.doubted_at)


async def vouched_from(warehouse: Warehouse, workspace: str) -> datetime | None:
    """Since when deliveries are believed to have told every change, as of the last look."""
    return (await belief.read(warehouse, workspace)).vouched_from


async def judge(warehouse: Warehouse, workspace: str) -> None:
    """Removes the changes found by reconciles that a delivery has told after all."""
    told = []
    for change in await belief.untold(warehouse, workspace):
        bodies = await belief.deliveries_since(warehouse, workspace, change)
        if any(_tells(payloads.body_of(body), change) for body in bodies):
            told.append(change.id)
    await belief.remove_told(warehouse, told)


def _tells(payload: Json, change: UntoldChange) -> bool:
    if change.kind == "pipeline":
        return payloads.run_number(payload) == change.number
    shown = time(inner(payload, "pullrequest", "updated_on"))
    return change.changed_at is None or shown is None or shown >= change.changed_at
