"""The same import through dlt's `rest_api` source, configured as its documentation recommends.

Resources depend on their parents (`{resources.…}`), all are parallelized, and rows are merged by primary key. Merge
commits are not asked for one by one: their hashes can be joined with those of the default branch. That spares dlt a
request for each merged pull request.

    python -m benchmarks.dlt_import WORKSPACE REQUESTS_IN_FLIGHT
"""

import os
import sys
from typing import Any

import dlt
from dlt.sources.rest_api import rest_api_source

from benchmarks import narrowing

Resource = dict[str, Any]
DATASET = "bench"
_REPOSITORY = "{resources.repositories.slug}"
_PULL = "{resources.pullrequests._repositories_slug}/pullrequests/{resources.pullrequests.id}"
_NOT_FOR_US = [{"status_code": 403, "action": "ignore"}, {"status_code": 404, "action": "ignore"}]
_NO_BRANCH = {"name": "-"}  # a template must find a name; this one answers 404


def _with_branch(repository: Resource) -> Resource:
    return repository | {"mainbranch": repository.get("mainbranch") or _NO_BRANCH}


def _with_key(entry: Resource) -> Resource:
    """An entry of the feed has no id of its own."""
    kind = next(kind for kind in ("comment", "update", "approval", "changes_requested") if kind in entry)
    body = entry[kind]
    who = (body.get("user") or body.get("author") or {}).get("uuid", "")
    return entry | {"key": f"{kind}/{body.get('created_on') or body['date']}/{who}/{body.get('id', '')}"}


def _resource(name: str, path: str, key: str | list[str], pagelen: int, **more: Any) -> Resource:
    """One endpoint; `params`, `parent` (fields taken over from it) and `step` are optional."""
    found: Resource = {
        "name": name,
        "primary_key": key,
        "endpoint": {"path": path, "params": {"pagelen": pagelen, **more.get("params", {})}},
    }
    if "parent" in more:
        found["include_from_parent"] = more["parent"]
    if "step" in more:
        found["processing_steps"] = [{"map": more["step"]}]
    return found


def resources(workspace: str) -> list[Resource]:
    root, commits = f"repositories/{workspace}", {"fields": narrowing.COMMITS}
    branch = "{resources.repositories.mainbranch.name}"
    of_pull = ["id", "_repositories_slug"]
    keys = ["_pullrequests__repositories_slug", "_pullrequests_id"]
    states = {"state": "OPEN,MERGED,DECLINED,SUPERSEDED", "fields": narrowing.PULL_REQUESTS}
    return [
        _resource("members", f"workspaces/{workspace}/members", "user__uuid", 100),
        _resource("repositories", root, "uuid", 100, params={"fields": narrowing.REPOSITORIES}, step=_with_branch),
        _resource(
            "pullrequests", f"{root}/{_REPOSITORY}/pullrequests", ["_repositories_slug", "id"], 50,
            params=states, parent=["slug"],
        ),
        _resource("activity", f"{root}/{_PULL}/activity", [*keys, "key"], 50, parent=of_pull, step=_with_key),
        _resource("comments", f"{root}/{_PULL}/comments", "id", 100, parent=of_pull),
        _resource("pull_commits", f"{root}/{_PULL}/commits", [*keys, "hash"], 100, params=commits, parent=of_pull),
        _resource(
            "branch_commits", f"{root}/{_REPOSITORY}/commits/{branch}", ["_repositories_slug", "hash"], 100,
            params=commits, parent=["slug"],
        ),
        _resource("pipelines", f"{root}/{_REPOSITORY}/pipelines/", "uuid", 100, parent=["slug"]),
    ]  # fmt: skip


def _credentials(database_url: str) -> str:
    """With a host and a password, which dlt demands: the socket in the query wins, and nobody asks for the other."""
    return database_url.replace("postgres@/", "postgres:unused@localhost/")


def main(workspace: str, in_flight: int) -> None:
    os.environ |= {"EXTRACT__WORKERS": str(in_flight), "RUNTIME__DLTHUB_TELEMETRY": "false"}
    source = rest_api_source(
        {
            "client": {
                "base_url": os.environ["BITBUCKET_API_URL"],
                "auth": {"type": "bearer", "token": os.environ["BITBUCKET_TOKEN"]},
            },
            "resource_defaults": {
                "write_disposition": "merge",
                "parallelized": True,
                # Named for each endpoint: dlt takes a path that ends with a template for a single thing, without pages.
                "endpoint": {
                    "paginator": {"type": "json_link", "next_url_path": "next"},
                    "data_selector": "values",
                    "response_actions": _NOT_FOR_US,
                },
            },
            "resources": resources(workspace),
        },
    )
    pipeline = dlt.pipeline(
        "bitbucket",
        pipelines_dir=f"{os.environ['HOME']}/dlt",
        destination=dlt.destinations.postgres(credentials=_credentials(os.environ["DX_DATABASE_URL"])),
        dataset_name=DATASET,
    )
    pipeline.run(source).raise_on_failed_jobs()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
