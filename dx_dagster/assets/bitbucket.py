"""The assets that are imported from Bitbucket Cloud, one for each of `STEPS`."""

from functools import partial
from typing import Any

import dagster as dg

from dx_dagster.assets.partitions import WORKSPACES
from dx_dagster.assets.step import ImportConfig, materialize
from dx_dagster.importer.activity.step import import_activity
from dx_dagster.importer.comments import import_comments
from dx_dagster.importer.commits.step import import_commits
from dx_dagster.importer.members import import_people
from dx_dagster.importer.pipelines import import_pipelines
from dx_dagster.importer.pull_requests import import_pull_requests
from dx_dagster.importer.repositories import import_repositories
from dx_dagster.resources import BitbucketResource
from dx_dagster.settings import Settings

_bitbucket_asset = partial(
    dg.asset,
    key_prefix="bitbucket",
    partitions_def=WORKSPACES,
    group_name="bitbucket",
    kinds={"python", "polars", "postgres", "bitbucket"},
    owners=["team:platform"],
)
Materialized = dg.MaterializeResult[Any]

# Pull requests get the budget first, then people. Pipelines take the most requests and come last.
_AFTER_PULL_REQUESTS = {"dagster/priority": "-1"}
_LAST = {"dagster/priority": "-2"}


@_bitbucket_asset()
def repositories(context: dg.AssetExecutionContext, config: ImportConfig, bitbucket: BitbucketResource) -> Materialized:
    """The workspace and its repositories. A repository that a complete listing lacks gets `deleted_at`."""
    return materialize(context, config, bitbucket, import_repositories)


@_bitbucket_asset(deps=[repositories], op_tags=_AFTER_PULL_REQUESTS)
def members(context: dg.AssetExecutionContext, config: ImportConfig, bitbucket: BitbucketResource) -> Materialized:
    """Users, with e-mail addresses from a Jira connection. Authors who are not members are inactive."""
    return materialize(context, config, bitbucket, partial(import_people, Settings.read()))


@_bitbucket_asset(deps=[repositories])
def pullrequests(context: dg.AssetExecutionContext, config: ImportConfig, bitbucket: BitbucketResource) -> Materialized:
    """Pull requests in all states, with their reviewers and participants."""
    return materialize(context, config, bitbucket, import_pull_requests)


@_bitbucket_asset(deps=[pullrequests])
def activity(context: dg.AssetExecutionContext, config: ImportConfig, bitbucket: BitbucketResource) -> Materialized:
    """Updates, approvals, change requests and comments of pull requests, and the durations computed from them."""
    return materialize(context, config, bitbucket, import_activity)


@_bitbucket_asset(deps=[activity])
def comments(context: dg.AssetExecutionContext, config: ImportConfig, bitbucket: BitbucketResource) -> Materialized:
    """Current text of comments on pull requests, with edited and deleted comments."""
    return materialize(context, config, bitbucket, import_comments)


@_bitbucket_asset(deps=[pullrequests])
def commits(context: dg.AssetExecutionContext, config: ImportConfig, bitbucket: BitbucketResource) -> Materialized:
    """Commits of pull requests and of default branches."""
    return materialize(context, config, bitbucket, import_commits)


@_bitbucket_asset(deps=[repositories], op_tags=_LAST)
def pipelines(context: dg.AssetExecutionContext, config: ImportConfig, bitbucket: BitbucketResource) -> Materialized:
    """Runs of Bitbucket Pipelines."""
    return materialize(context, config, bitbucket, import_pipelines, for_pipelines=True)
