"""The steps of an import, in their order: the names of their assets, and the tables that each fills."""

from dx_dagster.insights.unified import BUILDS
from dx_dagster.settings import Settings
from dx_dagster.warehouse.schema import Table
from dx_dagster.warehouse.schema import bitbucket as tables

SIZES = "pull_request_sizes"

# The first table is the one whose rows the asset counts.
STEPS: dict[str, tuple[Table, ...]] = {
    "repositories": (tables.repositories,),
    "members": (tables.users,),
    "pullrequests": (tables.pulls,),
    "activity": (tables.pull_activities,),
    "comments": (tables.pull_comments,),
    "commits": (tables.pull_commits, tables.default_branch_commits),
    "pipelines": (tables.pipelines,),
    "deployments": (tables.deployments, tables.environments),
    SIZES: (tables.pulls,),
}


FIRST = next(iter(STEPS))


def of_a_sync(settings: Settings) -> list[str]:
    """The steps of a sync."""
    return [step for step in STEPS if step != SIZES or settings.pull_request_size == "on"]


def key_of(step: str) -> str:
    """The key of the step's asset."""
    return f"bitbucket/{step}"


def op_name(key: str) -> str:
    """The asset's name in Dagster's run config."""
    return key.replace("/", "__")


# The asset that shows each table.
ASSETS: dict[str, str] = {str(filled[0].name): key_of(step) for step, filled in STEPS.items() if step != SIZES}
ASSETS |= {str(build.table.name): build.key for build in BUILDS}
