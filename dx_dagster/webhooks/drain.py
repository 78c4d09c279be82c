"""Applies what is due in one workspace's inbox, until nothing is."""

import time
from collections.abc import Awaitable, Callable

from dx_dagster.bitbucket import BitbucketClient
from dx_dagster.importer.workspace import Workspace, open_workspace
from dx_dagster.webhooks.apply import apply_deliveries
from dx_dagster.webhooks.outcomes import Applied

_SECONDS_BETWEEN_BUILDS = 10.0


async def drain(
    workspace: Workspace,
    run: str,
    result: Applied,
    *,
    for_pipelines: BitbucketClient | None,
    with_deployments: bool,
    must_end: Callable[[], bool],
    build: Callable[[Workspace], Awaitable[None]],
) -> None:
    """Applies deliveries until none is due, or `must_end` says so after a batch. Adds to `result` what became of them.

    `build` brings derived tables up to date: at the end, and every few seconds while deliveries keep coming.
    """
    unbuilt, built = False, time.monotonic()
    while not must_end():
        if not workspace.id:
            workspace = await open_workspace(workspace.slug, workspace.client, workspace.warehouse, workspace.listener)
        if not await apply_deliveries(workspace, run, result, for_pipelines, with_deployments=with_deployments):
            break
        unbuilt = True
        if time.monotonic() - built >= _SECONDS_BETWEEN_BUILDS:
            await build(workspace)
            unbuilt, built = False, time.monotonic()
    if unbuilt:
        await build(workspace)
