"""The steps of an import, in their order: the names of their assets, and the tables that each fills."""

from dx_dagster.warehouse.schema import Table
from dx_dagster.warehouse.schema import bitbucket as tables

# The first table is the one whose rows the asset counts.
STEPS: dict[str, tuple[Table, ...]] = {
    "repositories": (tables.repositories,),
    "members": (tables.users,),
    "pullrequests": (tables.pulls,),
    "activity": (tables.pull_activities,),
    "comments": (tables.pull_comments,),
    "commits": (tables.pull_commits, tables.default_branch_commits),
    "pipelines": (tables.pipelines,),
}


def op_name(step: str) -> str:
    """The step's name in Dagster's run config."""
    return f"bitbucket__{step}"
