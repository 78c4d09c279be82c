"""Rows that an earlier version derived otherwise, or whose reasons have changed: mended without asking Bitbucket."""

from dx_dagster.importer.workspace import Workspace
from dx_dagster.warehouse.imported import moves, repositories, review_times


async def mend(workspace: Workspace) -> None:
    """Derives durations again that follow older rules, or count somebody as a person who is a bot, or the reverse.

    An earlier version left rows of repositories that had moved with the users of the workspace they came from.
    """
    async with workspace.warehouse.transaction() as transaction:
        if await review_times.follow_old_rules(transaction, workspace.id):
            await moves.rekey(transaction, await repositories.all_ids(transaction, workspace.id))
        await review_times.mend(transaction, workspace.id)
