"""Runs over a workspace's inbox until it is empty, and a little longer."""

import time
from collections.abc import Awaitable, Callable
from datetime import timedelta

import anyio

from dx_dagster.bitbucket import BitbucketClient
from dx_dagster.importer.workspace import Workspace, open_workspace
from dx_dagster.warehouse.webhooks import inbox
from dx_dagster.webhooks.apply import apply_deliveries
from dx_dagster.webhooks.outcomes import Applied

_SECONDS_BETWEEN_LOOKS = 0.5
_SECONDS_BETWEEN_YIELDS = 2.0
# Then a sync of the workspace that waits gets its turn.
_LONGEST_RUN_SECONDS = 600.0
_SECONDS_BETWEEN_BUILDS = 10.0


class Turn:
    """Decides how long a run over an inbox goes on, from times of one monotonic clock."""

    def __init__(self, now: float, linger: float) -> None:
        self._began = self._last = self._looked = now
        self._linger = linger

    def is_over(self, now: float, is_waited_for: Callable[[], bool]) -> bool:
        """Whether the run has reached its longest duration, or a sync waits; that is checked every few seconds."""
        if self._last - self._began >= _LONGEST_RUN_SECONDS:
            return True
        if now - self._looked < _SECONDS_BETWEEN_YIELDS:
            return False
        self._looked = now
        return is_waited_for()

    def applied(self, now: float) -> None:
        """Notes that deliveries were applied now."""
        self._last = now

    def has_lingered(self, now: float) -> bool:
        """Whether no delivery has been applied for `linger` seconds."""
        return now - self._last >= self._linger


async def _builds_nothing(workspace: Workspace) -> None:
    del workspace


async def drain(
    workspace: Workspace,
    run: str,
    *,
    linger: float,
    keep: timedelta,
    for_pipelines: BitbucketClient | None = None,
    with_deployments: bool = True,
    is_waited_for: Callable[[], bool] = lambda: False,
    build: Callable[[Workspace], Awaitable[None]] = _builds_nothing,
) -> Applied:
    """Applies deliveries until none has arrived for `linger` seconds, then prunes those applied before `keep`.

    Starting a run takes seconds, and deliveries arrive in groups: a run that lingers applies the next ones at once. It
    ends as soon as deliveries of another workspace wait, or a sync of this workspace does (`is_waited_for`).

    `build` brings derived tables up to date: once no delivery is due, and every few seconds while they keep coming.
    """
    result, turn = Applied(), Turn(time.monotonic(), linger)
    unbuilt, built = False, time.monotonic()
    while not turn.is_over(time.monotonic(), is_waited_for):
        if not workspace.id:
            workspace = await open_workspace(workspace.slug, workspace.client, workspace.warehouse, workspace.listener)
        if await apply_deliveries(workspace, run, result, for_pipelines, with_deployments=with_deployments):
            turn.applied(time.monotonic())
            unbuilt = True
            if time.monotonic() - built < _SECONDS_BETWEEN_BUILDS:
                continue
        if unbuilt:
            await build(workspace)
            unbuilt, built = False, time.monotonic()
        elif turn.has_lingered(time.monotonic()) or await inbox.others_wait(workspace.warehouse, workspace.slug):
            break
        else:
            await anyio.sleep(_SECONDS_BETWEEN_LOOKS)
    if unbuilt:
        await build(workspace)
    await inbox.prune(workspace.warehouse, keep)
    return result
