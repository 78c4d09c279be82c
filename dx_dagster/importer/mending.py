"""Updates derived rows without requests, where an earlier version or earlier data derived them differently."""

from dx_dagster.importer.workspace import Workspace
from dx_dagster.warehouse.imported import moves, repositories, review_times


async def mend(workspace: Workspace) -> None:
    """Derives durations again that follow older rules, or whose accounts have become bots or people since.

    An earlier version left the user ids of the old workspace in the rows of moved repositories.
    """
    async with workspace.warehouse.transaction() as transaction:
        if await review_times.follow_old_rules(transaction, workspace.id):
            await moves.rekey(transaction, await repositories.all_ids(transaction, workspace.id))
        await review_times.mend(transaction, workspace.id)
