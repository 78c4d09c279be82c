"""One run over a workspace's inbox: until it is empty, and a little longer."""

import time
from collections.abc import Callable
from datetime import timedelta

import anyio

from dx_dagster.bitbucket import BitbucketClient
from dx_dagster.importer.refresh import Refreshed, refresh
from dx_dagster.importer.workspace import Workspace, open_workspace
from dx_dagster.warehouse import inbox

_SECONDS_BETWEEN_LOOKS = 0.5
_SECONDS_BETWEEN_YIELDS = 2.0
# Then a sync of the workspace that waits for its turn gets it.
_LONGEST_RUN_SECONDS = 600.0


async def drain(
    workspace: Workspace,
    run: str,
    *,
    linger: float,
    keep: timedelta,
    for_pipelines: BitbucketClient | None = None,
    is_waited_for: Callable[[], bool] = lambda: False,
) -> Refreshed:
    """Applies deliveries until none has come for `linger` seconds, then deletes those applied before `keep`.

    Starting a run takes seconds, and deliveries seldom come alone. A run that lingers applies the next ones at once;
    it makes room as soon as another workspace's deliveries wait, or a sync of this one (`is_waited_for`).
    """
    result = Refreshed()
    began = last = looked = time.monotonic()
    while last - began < _LONGEST_RUN_SECONDS:
        if time.monotonic() - looked >= _SECONDS_BETWEEN_YIELDS:
            looked = time.monotonic()
            if is_waited_for():
                break
        if not workspace.id:
            workspace = await open_workspace(workspace.slug, workspace.client, workspace.warehouse, workspace.listener)
        if await refresh(workspace, run, result, for_pipelines):
            last = time.monotonic()
        elif time.monotonic() - last >= linger or await inbox.others_wait(workspace.warehouse, workspace.slug):
            break
        else:
            await anyio.sleep(_SECONDS_BETWEEN_LOOKS)
    await inbox.prune(workspace.warehouse, keep)
    return result
