"""External assets: the endpoints of Bitbucket's API that the imported assets read."""

import inspect
from collections.abc import Callable, Iterable
from urllib.parse import unquote

import dagster as dg

from dx_dagster.bitbucket import endpoints
from dx_dagster.bitbucket.endpoints import Endpoint

# By the step that reads them.
READ: dict[str, tuple[Callable[..., Endpoint], ...]] = {
    "repositories": (endpoints.workspace, endpoints.repositories, endpoints.repository),
    "members": (endpoints.members, endpoints.member),
    "pullrequests": (endpoints.pull_requests, endpoints.pull_request),
    "activity": (endpoints.activity, endpoints.pull_request_activity),
    "comments": (endpoints.comments,),
    "commits": (endpoints.branch_commits, endpoints.pull_request_commits, endpoints.commits, endpoints.commit),
    "pipelines": (endpoints.pipelines, endpoints.pipeline),
    "pull_request_sizes": (endpoints.diffstat,),
    "deployments": (
        *(endpoints.environments, endpoints.environment),
        *(endpoints.deployments, endpoints.deployment),
    ),
}


def read_by(step: str) -> list[dg.AssetKey]:
    """Keys of the endpoints that the step reads."""
    return [dg.AssetKey.from_user_string(_name(endpoint)) for endpoint in READ[step]]


def path_of(endpoint: Callable[..., Endpoint]) -> str:
    """The endpoint's path below the API's base URL, with its parameters in braces."""
    required = [
        name for name, one in inspect.signature(endpoint).parameters.items() if one.default is inspect.Parameter.empty
    ]
    return unquote(endpoint(**{name: f"{{{name}}}" for name in required}).path)


def _name(endpoint: Callable[..., Endpoint]) -> str:
    return f"api/{endpoint.__name__}"


def _external(endpoint: Callable[..., Endpoint]) -> dg.AssetSpec:
    path = path_of(endpoint)
    return dg.AssetSpec(
        dg.AssetKey.from_user_string(_name(endpoint)),
        group_name="bitbucket_api",
        kinds={"bitbucket"},
        owners=["team:platform"],
        description=f"`GET {path}` of Bitbucket Cloud's API 2.0.",
        metadata={"path": path},
    )


def external(steps: Iterable[str]) -> dict[str, dg.AssetSpec]:
    """The specs of the endpoints that these steps read, by name."""
    return {_name(endpoint): _external(endpoint) for step in steps for endpoint in READ[step]}
