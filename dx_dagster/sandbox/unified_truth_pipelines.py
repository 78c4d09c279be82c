"""The expected rows of `pipeline_sources`, `pipeline_runs` and `deployments`, from rows of the imported tables' truth.

Rows have natural keys, as `dx_dagster.sandbox.truth` describes them; `dx_user` is an account. Which deployment is the
first to contain which merge comes from the world itself: `attributed`.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from itertools import groupby
from typing import Any

from dx_dagster.sandbox.commits import log
from dx_dagster.sandbox.world import World

Row = Mapping[str, Any]
RESULTS = {
    "SUCCESSFUL": "success",
    "FAILED": "failure",
    "ERROR": "failure",
    "EXPIRED": "failure",
    "STOPPED": "cancelled",
}
GOING = {"PENDING", "IN_PROGRESS"}


def unified_truth_of_pipelines(truth: Mapping[str, Sequence[Row]]) -> dict[str, list[Row]]:
    """Rows by table, of the rows of `truth`."""
    workspace = truth["bitbucket_workspaces"][0]["slug"]
    repositories = {row["source_id"]: row for row in truth["bitbucket_repositories"]}
    environments = {row["source_id"]: row for row in truth.get("bitbucket_environments", [])}
    runs, deployments = truth["bitbucket_pipelines"], truth.get("bitbucket_deployments", [])
    return {
        "pipeline_sources": [
            {"repository": uuid, "name": repositories[uuid]["name"], "source": "bitbucket"}
            for uuid in {run["repository"] for run in runs}
        ],
        "pipeline_runs": [_run(run, workspace, repositories[run["repository"]]) for run in runs],
        "deployments": [
            _deployment(one, workspace, repositories[one["repository"]], environments.get(one["environment"]))
            for one in deployments
            if one["state"] == "COMPLETED"
        ],
    }


def _run(run: Row, workspace: str, repository: Row) -> Row:
    return {
        "source_id": run["source_id"],
        "repository_uuid": run["repository"],
        "name": repository["name"],
        "status": _status(run),
        "started_at": run["created_at"],
        "finished_at": run["completed_at"],
        "updated_at": run["completed_at"] or run["created_at"],
        "duration": run["duration"],
        "repository": f"{workspace}/{repository['slug']}",
        "commit_sha": run["commit_sha"],
        "head_branch": run["ref_name"],
        "pr_number": run["pull"],
        "pull": run["pull"],
        "dx_user": run["user"],
        "source_url": run["source_url"],
        "deleted": False,
        "source": "bitbucket",
    }


def _status(run: Row) -> str:
    """A run that waits for its manual step has succeeded so far."""
    if run["result"] is not None:
        return RESULTS.get(run["result"], "unknown")
    if run["stage"] == "PAUSED":
        return "success"
    return "running" if run["state"] in GOING else "unknown"


def _deployment(deployment: Row, workspace: str, repository: Row, environment: Row | None) -> Row:
    is_production = environment is not None and environment["type"] == "Production"
    return {
        "reference_id": deployment["source_id"],
        "service_repository": deployment["repository"],
        "repository": f"{workspace}/{repository['slug']}",
        "commit_sha": deployment["commit_sha"],
        "environment": "production" if is_production else environment and environment["name"],
        "deployed_at": deployment["completed_at"],
        "success": deployment["status"] == "SUCCESSFUL",
        "service": repository["name"],
        "source_url": deployment["source_url"],
        "source_name": "Bitbucket Pipelines",
        "deleted": False,
        "source": "bitbucket",
    }


def attributed(world: World, truth: Mapping[str, Sequence[Row]]) -> set[tuple[str, int]]:
    """Each deployment (uuid) with the number of each pull request that it is the first of its environment to contain.

    Only where no history was rewritten: an import after that knows nothing of the old commits' ancestors.
    """
    with world.lock:
        histories = {r.uuid: {commit.sha: commit for commit in log([r.head])} for r in world.open_repositories}
    merges = [row for row in truth["bitbucket_pulls"] if row["state"] == "MERGED" and row["merge_commit_sha"]]
    ended = [row for row in truth["bitbucket_deployments"] if row["status"] == "SUCCESSFUL"]
    latest = datetime.max.replace(tzinfo=UTC)
    found: set[tuple[str, int]] = set()
    order = sorted(ended, key=lambda d: (d["environment"], d["completed_at"] or latest, d["started_at"] or latest))
    for _, those in groupby(order, key=lambda deployment: deployment["environment"]):
        left = list(merges)
        for one in those:
            commits, sha = histories[one["repository"]], one["commit_sha"]
            contained = {commit.sha for commit in log([commits[sha]])} if sha in commits else {sha}
            here = [p for p in left if p["repository"] == one["repository"] and p["merge_commit_sha"] in contained]
            found |= {(one["source_id"], pull["source_id"]) for pull in here}
            left = [pull for pull in left if pull not in here]
    return found
