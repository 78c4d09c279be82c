"""What is imported from Bitbucket Cloud, one asset for each kind of thing."""

from functools import partial
from typing import Any

import dagster as dg

from dx_dagster.assets.partitions import WORKSPACES
from dx_dagster.assets.step import RESOURCES, ImportConfig, materialize
from dx_dagster.importer.activity.step import import_activity
from dx_dagster.importer.comments import import_comments
from dx_dagster.importer.commits.step import import_commits
from dx_dagster.importer.members import import_people
from dx_dagster.importer.pipelines import import_pipelines
from dx_dagster.importer.pull_requests import import_pull_requests
from dx_dagster.importer.repositories import import_repositories
from dx_dagster.settings import Settings
from dx_dagster.warehouse.schema import bitbucket as tables

_bitbucket_asset = partial(
    dg.asset,
    key_prefix="bitbucket",
    partitions_def=WORKSPACES,
    group_name="bitbucket",
    kinds={"python", "polars", "postgres", "bitbucket"},
    owners=["team:platform"],
    required_resource_keys=RESOURCES,
)
Materialized = dg.MaterializeResult[Any]

# Within a budget, pull requests come first; then the people of whom all else tells; pipelines are the most requests.
_AFTER_PULL_REQUESTS = {"dagster/priority": "-1"}
_LAST = {"dagster/priority": "-2"}


@_bitbucket_asset()
def repositories(context: dg.AssetExecutionContext, config: ImportConfig) -> Materialized:
    """The workspace and its repositories. One that a complete listing no longer holds gets `deleted_at`."""
    return materialize(context, config, import_repositories, tables.repositories)


@_bitbucket_asset(deps=[repositories], op_tags=_AFTER_PULL_REQUESTS)
def members(context: dg.AssetExecutionContext, config: ImportConfig) -> Materialized:
    """People, with the e-mail addresses that a Jira connection tells. Authors who are no members are inactive users."""
    return materialize(context, config, partial(import_people, Settings.read()), tables.users)


@_bitbucket_asset(deps=[repositories])
def pullrequests(context: dg.AssetExecutionContext, config: ImportConfig) -> Materialized:
    """Pull requests in all states, with their reviewers and participants."""
    return materialize(context, config, import_pull_requests, tables.pulls)


@_bitbucket_asset(deps=[pullrequests])
def activity(context: dg.AssetExecutionContext, config: ImportConfig) -> Materialized:
    """Updates, approvals, change requests and comments of pull requests, and the times that follow from them."""
    return materialize(context, config, import_activity, tables.pull_activities)


@_bitbucket_asset(deps=[activity])
def comments(context: dg.AssetExecutionContext, config: ImportConfig) -> Materialized:
    """Comments on pull requests, as they read now: edited and deleted ones included."""
    return materialize(context, config, import_comments, tables.pull_comments)


@_bitbucket_asset(deps=[pullrequests])
def commits(context: dg.AssetExecutionContext, config: ImportConfig) -> Materialized:
    """Commits of pull requests and of default branches."""
    return materialize(context, config, import_commits, tables.pull_commits)


@_bitbucket_asset(deps=[repositories], op_tags=_LAST)
def pipelines(context: dg.AssetExecutionContext, config: ImportConfig) -> Materialized:
    """Runs of Bitbucket Pipelines."""
    return materialize(context, config, import_pipelines, tables.pipelines, for_pipelines=True)


ASSETS = [repositories, members, pullrequests, activity, comments, commits, pipelines]
