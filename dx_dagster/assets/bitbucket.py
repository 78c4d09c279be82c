"""The assets that are imported from Bitbucket Cloud, one for each of `STEPS`."""

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

import dagster as dg

from dx_dagster.assets.checks import specs
from dx_dagster.assets.code_references import code_of
from dx_dagster.assets.derived import build_without_pipelines
from dx_dagster.assets.external import read_by
from dx_dagster.assets.placement import Placement
from dx_dagster.assets.step import Events, ImportConfig, column_schema, materialize
from dx_dagster.assets.steps import SIZES, STEPS, key_of, op_name
from dx_dagster.importer.activity.step import import_activity
from dx_dagster.importer.comments import import_comments
from dx_dagster.importer.commits.step import import_commits
from dx_dagster.importer.deployments import import_deployments
from dx_dagster.importer.members import import_people
from dx_dagster.importer.pipelines import import_pipelines
from dx_dagster.importer.pull_request_sizes import import_sizes
from dx_dagster.importer.pull_requests import import_pull_requests
from dx_dagster.importer.report import Report
from dx_dagster.importer.repositories import KIND as REPOSITORIES
from dx_dagster.importer.repositories import import_repositories
from dx_dagster.importer.workspace import Workspace
from dx_dagster.settings import Settings
from dx_dagster.webhooks import belief

# Pull requests get the budget first, then people. Pipelines take the most requests and come last.
_AFTER_PULL_REQUESTS, _LAST, _FROM_WHAT_IS_LEFT = -1, -2, -3


@dataclass(frozen=True)
class _Imported:
    """An imported asset.

    Attributes:
        step: its name in `STEPS`.
        function: the importer's, which the asset's page links to.
        after: the steps whose rows it reads.
        work: the function with its settings; by default the function itself, which has none.
    """

    step: str
    function: Callable[..., Awaitable[Report]]
    description: str
    after: tuple[str, ...] = ()
    priority: int = 0
    for_pipelines: bool = False
    work: Callable[[Settings, Workspace], Awaitable[Report]] | None = None

    def at_work(self, settings: Settings) -> Callable[[Workspace], Awaitable[Report]]:
        return self.function if self.work is None else partial(self.work, settings)


async def _list_repositories(settings: Settings, workspace: Workspace) -> Report:
    """Begins a sync: settles whether its later steps may believe the webhook, as a killed one has that goes on."""
    if not workspace.has_ended(REPOSITORIES):
        await belief.look(settings, workspace.client, workspace.warehouse, workspace.slug)
    return await import_repositories(workspace)


async def _import_pull_requests(_: Settings, workspace: Workspace) -> Report:
    report = await import_pull_requests(workspace)
    await belief.judge(workspace.warehouse, workspace.slug)
    return report


_IMPORTED = (
    _Imported(
        "repositories",
        import_repositories,
        "The workspace and its repositories. A repository that a complete listing lacks gets `deleted_at`.",
        work=_list_repositories,
    ),
    _Imported(
        "members",
        import_people,
        "Users, with e-mail addresses where they are known. Authors who are not members are inactive.",
        after=("repositories",),
        priority=_AFTER_PULL_REQUESTS,
        work=import_people,
    ),
    _Imported(
        "pullrequests",
        import_pull_requests,
        "Pull requests in all states, with their reviewers and participants.",
        after=("repositories",),
        work=_import_pull_requests,
    ),
    _Imported(
        "activity",
        import_activity,
        "Updates, approvals, change requests and comments of pull requests, and the durations computed from them.",
        after=("pullrequests",),
    ),
    _Imported(
        "comments",
        import_comments,
        "Current text of comments on pull requests, with edited and deleted comments.",
        after=("activity",),
    ),
    _Imported("commits", import_commits, "Commits of pull requests and of default branches.", after=("pullrequests",)),
    _Imported(
        "pipelines",
        import_pipelines,
        "Runs of Bitbucket Pipelines.",
        after=("repositories",),
        priority=_LAST,
        for_pipelines=True,
    ),
    _Imported(
        "deployments",
        import_deployments,
        "Deployments by Bitbucket Pipelines, and their environments. DX_DEPLOYMENTS=off leaves them out.",
        after=("pipelines",),
        priority=_LAST,
        for_pipelines=True,
        work=import_deployments,
    ),
    # It depends on pull requests alone, so that it runs whichever other step fails; its priority makes it the last.
    _Imported(
        SIZES,
        import_sizes,
        "Additions, deletions and changed files of pull requests, as far as the hour's requests allow.\n\n"
        "A sync leaves it out unless DX_PULL_REQUEST_SIZE is on.",
        after=("pullrequests",),
        priority=_FROM_WHAT_IS_LEFT,
        work=import_sizes,
    ),
)


def imported_specs(steps: Iterable[str]) -> dict[str, dg.AssetSpec]:
    """The specs of the steps' assets, by name."""
    return {key_of(one.step): _spec(one) for one in _IMPORTED if one.step in set(steps)}


def _spec(one: _Imported) -> dg.AssetSpec:
    table = STEPS[one.step][0]
    return dg.AssetSpec(
        key=dg.AssetKey.from_user_string(key_of(one.step)),
        deps=[*(dg.AssetKey.from_user_string(key_of(step)) for step in one.after), *read_by(one.step)],
        group_name="bitbucket",
        kinds={"python", "polars", "postgres", "bitbucket"},
        owners=["team:platform"],
        description=one.description,
        metadata={
            **code_of(one.function),
            "dagster/table_name": table.name,
            "dagster/column_schema": column_schema(table),
        },
    )


def imported(placement: Placement) -> list[dg.AssetsDefinition]:
    return [_asset(placement, one) for one in _IMPORTED if one.step in placement.steps]


def _asset(placement: Placement, one: _Imported) -> dg.AssetsDefinition:
    op_tags: dict[str, Any] = {"dagster/priority": str(one.priority)} if one.priority else {}

    @dg.multi_asset(
        name=placement.name(op_name(key_of(one.step))),
        specs=[placement.specs[key_of(one.step)]],
        check_specs=specs(placement, key_of(one.step)),
        partitions_def=placement.partitions,
        required_resource_keys={placement.name("bitbucket")},
        op_tags=op_tags,
        can_subset=True,  # a sync selects the asset without its checks
    )
    def asset(context: dg.AssetExecutionContext, config: ImportConfig) -> Events:
        work = one.at_work(placement.settings())
        try:
            yield from materialize(placement, context, config, one.step, work, for_pipelines=one.for_pipelines)
        except dg.Failure:
            if one.for_pipelines:
                build_without_pipelines(placement, context, full=config.full)
            raise

    return asset
