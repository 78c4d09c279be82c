"""DX's unified tables, one module for each; and the builds of all derived tables."""

from dx_dagster.insights import measures, reviews
from dx_dagster.insights.building import Build
from dx_dagster.insights.people import builds as people
from dx_dagster.insights.unified import (
    deployments,
    pipeline_runs,
    pipeline_sources,
    pull_request_commits,
    pull_request_issues,
    pull_request_reviews,
    pull_requests,
    repos,
)

BUILDS: tuple[Build, ...] = (
    people.TEAMS,
    people.HIERARCHIES,
    people.USERS,
    people.IDENTITIES,
    people.IDENTIFIERS,
    repos.BUILD,
    reviews.BUILD,
    pull_requests.BUILD,
    pull_request_commits.BUILD,
    pull_request_issues.BUILD,
    pull_request_reviews.BUILD,
    pipeline_sources.BUILD,
    pipeline_runs.BUILD,
    deployments.BUILD,
    *measures.BUILDS,
)
"""In an order in which each comes after those that it reads; people first, since what they change is looked at again by
whatever was built before."""
