"""The assets that are imported from Bitbucket Cloud, one for each of `STEPS`."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import dagster as dg

from dx_dagster.assets.checks import specs
from dx_dagster.assets.code_references import code_of
from dx_dagster.assets.external import read_by
from dx_dagster.assets.partitions import WORKSPACES
from dx_dagster.assets.step import Events, ImportConfig, column_schema, materialize
from dx_dagster.assets.steps import STEPS, key_of
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
from dx_dagster.resources import BitbucketResource
from dx_dagster.settings import Settings
from dx_dagster.webhooks import belief


def _imported(
    step: str, function: Callable[..., Any], *after: dg.AssetsDefinition, op_tags: Mapping[str, str] | None = None
) -> Callable[[Callable[..., Events]], dg.AssetsDefinition]:
    """The decorator of a step's asset. `after`: the assets whose rows it reads."""
    table = STEPS[step][0]
    return dg.asset(
        key_prefix="bitbucket",
        deps=[*after, *read_by(step)],
        partitions_def=WORKSPACES,
        check_specs=specs(key_of(step)),
        group_name="bitbucket",
        kinds={"python", "polars", "postgres", "bitbucket"},
        owners=["team:platform"],
        metadata={
            **code_of(function),
            "dagster/table_name": table.name,
            "dagster/column_schema": column_schema(table),
        },
        op_tags=op_tags,
    )


# Pull requests get the budget first, then people. Pipelines take the most requests and come last.
_AFTER_PULL_REQUESTS = {"dagster/priority": "-1"}
_LAST = {"dagster/priority": "-2"}
_FROM_WHAT_IS_LEFT = {"dagster/priority": "-3"}


async def _list_repositories(workspace: Workspace) -> Report:
    """Begins a sync: settles whether its later steps may believe the webhook, as a killed one has that goes on."""
    if not workspace.has_ended(REPOSITORIES):
        await belief.look(Settings.read(), workspace.client, workspace.warehouse, workspace.slug)
    return await import_repositories(workspace)


@_imported("repositories", import_repositories)
def repositories(context: dg.AssetExecutionContext, config: ImportConfig, bitbucket: BitbucketResource) -> Events:
    """The workspace and its repositories. A repository that a complete listing lacks gets `deleted_at`."""
    return materialize(context, config, bitbucket, _list_repositories)


@_imported("members", import_people, repositories, op_tags=_AFTER_PULL_REQUESTS)
def members(context: dg.AssetExecutionContext, config: ImportConfig, bitbucket: BitbucketResource) -> Events:
    """Users, with e-mail addresses where they are known. Authors who are not members are inactive."""
    return materialize(context, config, bitbucket, partial(import_people, Settings.read()))


async def _import_pull_requests(workspace: Workspace) -> Report:
    report = await import_pull_requests(workspace)
    await belief.judge(workspace.warehouse, workspace.slug)
    return report


@_imported("pullrequests", import_pull_requests, repositories)
def pullrequests(context: dg.AssetExecutionContext, config: ImportConfig, bitbucket: BitbucketResource) -> Events:
    """Pull requests in all states, with their reviewers and participants."""
    return materialize(context, config, bitbucket, _import_pull_requests)


@_imported("activity", import_activity, pullrequests)
def activity(context: dg.AssetExecutionContext, config: ImportConfig, bitbucket: BitbucketResource) -> Events:
    """Updates, approvals, change requests and comments of pull requests, and the durations computed from them."""
    return materialize(context, config, bitbucket, import_activity)


@_imported("comments", import_comments, activity)
def comments(context: dg.AssetExecutionContext, config: ImportConfig, bitbucket: BitbucketResource) -> Events:
    """Current text of comments on pull requests, with edited and deleted comments."""
    return materialize(context, config, bitbucket, import_comments)


@_imported("commits", import_commits, pullrequests)
def commits(context: dg.AssetExecutionContext, config: ImportConfig, bitbucket: BitbucketResource) -> Events:
    """Commits of pull requests and of default branches."""
    return materialize(context, config, bitbucket, import_commits)


@_imported("pipelines", import_pipelines, repositories, op_tags=_LAST)
def pipelines(context: dg.AssetExecutionContext, config: ImportConfig, bitbucket: BitbucketResource) -> Events:
    """Runs of Bitbucket Pipelines."""
    return materialize(context, config, bitbucket, import_pipelines, for_pipelines=True)


@_imported("deployments", import_deployments, pipelines, op_tags=_LAST)
def deployments(context: dg.AssetExecutionContext, config: ImportConfig, bitbucket: BitbucketResource) -> Events:
    """Deployments by Bitbucket Pipelines, and their environments. DX_DEPLOYMENTS=off leaves them out."""
    step = partial(import_deployments, Settings.read())
    return materialize(context, config, bitbucket, step, for_pipelines=True)


# It depends on pull requests alone, so that it runs whichever other step fails; its priority makes it the last.
@_imported("pull_request_sizes", import_sizes, pullrequests, op_tags=_FROM_WHAT_IS_LEFT)
def pull_request_sizes(context: dg.AssetExecutionContext, config: ImportConfig, bitbucket: BitbucketResource) -> Events:
    """Additions, deletions and changed files of pull requests, as far as the hour's requests allow.

    A sync leaves it out unless DX_PULL_REQUEST_SIZE is on.
    """
    return materialize(context, config, bitbucket, partial(import_sizes, Settings.read()))


IMPORTED = (
    *(repositories, members, pullrequests, activity, comments, commits),
    *(pipelines, deployments, pull_request_sizes),
)
