"""The API's endpoints: path, parameters and the largest page size of each.

Repositories are addressed by uuid, so that a rename during an import changes nothing. A `fields` list must include
`next`, or paging ends after the first page. Bitbucket ignores a misspelled field, so a test finds each field here in a
payload. docs/bitbucket-api.md has the sources: "Filters, sorting and fields".
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from urllib.parse import quote

from dx_dagster.bitbucket.origin import Params
from dx_dagster.bitbucket.row_keys import Key

PAGE = 100
"""The largest page size; a larger one answers 400 (docs/bitbucket-api.md, "Paging")."""

SMALL_PAGE = 50
"""The largest page size of pull requests and activity (docs/bitbucket-api.md, "Paging")."""

LEAST_PAGE = 10
"""The smallest page size (docs/bitbucket-api.md, "Paging")."""

PULL_REQUEST_STATES = ("OPEN", "MERGED", "DECLINED", "SUPERSEDED")

_PAGING = ("next", "size", "page", "pagelen")
_USER = ("type", "uuid", "account_id", "display_name", "nickname")


def _under(parent: str, *names: str) -> tuple[str, ...]:
    return tuple(f"{parent}.{name}" for name in names)


COMMIT_FIELDS = (
    *("hash", "date", "message", "links.html.href", "parents.hash", "author.raw"),
    *_under("author.user", *_USER),
)

PULL_REQUEST_FIELDS = (
    *("id", "title", "state", "draft", "comment_count", "task_count", "close_source_branch"),
    *("created_on", "updated_on", "closed_on", "links.html.href"),
    *_under("author", *_USER),
    *_under("closed_by", *_USER),
    *_under("source", "branch.name", "commit.hash", "repository.uuid"),
    *_under("destination", "branch.name", "commit.hash", "repository.uuid"),
    *_under("merge_commit", "hash", "date"),
    *_under("reviewers", *_USER),
    *_under("participants", "role", "approved", "state", "participated_on"),
    *_under("participants.user", *_USER),
)

# With the paths: pages are told apart by their rows.
DIFFSTAT_FIELDS = ("lines_added", "lines_removed", "old.path", "new.path")

REPOSITORY_FIELDS = (
    *("uuid", "name", "slug", "full_name", "description", "is_private", "created_on", "updated_on", "links.html.href"),
    *("mainbranch.name", "project.key", "project.name", "workspace.uuid", "workspace.slug", "workspace.name"),
)

ENVIRONMENT_FIELDS = ("uuid", "name", "slug", "rank", "hidden", "environment_type.name", "category.name")

DEPLOYMENT_FIELDS = (
    *("uuid", "last_update_time", "links.html.href", "environment.uuid", "commit.hash"),
    *_under("state", "name", "status.name", "url", "started_on", "start_date", "completed_on", "completion_date"),
    *_under("release", "name", "url", "created_on", "pipeline.uuid", "commit.hash"),
    *_under("deployable", "name", "url", "created_on", "pipeline.uuid", "commit.hash"),
)


def _listed(names: Sequence[str]) -> str:
    return ",".join((*_PAGING, *_under("values", *names)))


@dataclass(frozen=True)
class Endpoint:
    """A request to make.

    Attributes:
        pagelen: None where the response is one object.
        data: a form to send by POST.
        key: the field that each row of a listing has.
    """

    path: str
    params: Params = field(default_factory=dict)
    pagelen: int | None = PAGE
    data: Params | None = None
    key: Key | None = None

    @property
    def method(self) -> str:
        return "GET" if self.data is None else "POST"

    def having(self, params: Params) -> "Endpoint":
        """A copy with more parameters."""
        return replace(self, params={**self.params, **params})


def _workspace(workspace: str) -> str:
    return f"/workspaces/{quote(workspace, safe='')}"


def _repository(workspace: str, repository: str) -> str:
    # An empty workspace addresses the removed global listing, which answers 410 (docs/bitbucket-api.md, "Errors").
    if not workspace or not repository:
        raise ValueError("a repository is addressed by its workspace and its uuid")
    return f"/repositories/{quote(workspace, safe='')}/{quote(repository, safe='')}"


def workspace(workspace: str) -> Endpoint:
    return Endpoint(_workspace(workspace), pagelen=None)


EMAILS_AT_ONCE = 90
"""Addresses in one request; more answer 400 (docs/bitbucket-api.md, "Workspaces and members")."""


def members(workspace: str, emails: Sequence[str] = ()) -> Endpoint:
    """All members; or those who have one of the addresses, each with it as `user.email` (docs/bitbucket-api.md)."""
    # Without a key: a row whose user is null is a member whose account was deleted, and no reason to keep all others.
    listed = Endpoint(f"{_workspace(workspace)}/members")
    if not emails:
        return listed
    quoted = ",".join(json.dumps(email, ensure_ascii=False) for email in emails)
    return listed.having({"q": f"user.email IN ({quoted})", "fields": "+values.user.email"})


def member(workspace: str, account: str) -> Endpoint:
    """One member, by uuid or account id; answers 404 for other accounts."""
    return Endpoint(f"{_workspace(workspace)}/members/{quote(account, safe='')}", pagelen=None)


def repositories(workspace: str) -> Endpoint:
    """Repositories that a credential sees: walk the list with one (docs/bitbucket-api.md, "Credentials")."""
    if not workspace:
        raise ValueError("repositories are listed by workspace")
    return Endpoint(f"/repositories/{quote(workspace, safe='')}", {"fields": _listed(REPOSITORY_FIELDS)}, key="uuid")


def repository(workspace: str, repository: str) -> Endpoint:
    return Endpoint(_repository(workspace, repository), pagelen=None)


def pull_requests(workspace: str, repository: str, states: Sequence[str] = PULL_REQUEST_STATES) -> Endpoint:
    """Pull requests of the `states`; the API's own default is OPEN (docs/bitbucket-api.md, "Pull requests")."""
    params: Params = {"state": list(states), "fields": _listed(PULL_REQUEST_FIELDS)}
    return Endpoint(f"{_repository(workspace, repository)}/pullrequests", params, SMALL_PAGE, key="id")


def pull_request(workspace: str, repository: str, number: int) -> Endpoint:
    path = f"{_repository(workspace, repository)}/pullrequests/{number}"
    return Endpoint(path, {"fields": ",".join(PULL_REQUEST_FIELDS)}, None)


def activity(workspace: str, repository: str) -> Endpoint:
    """The feed of all pull requests, newest first; `q` and `sort` are ignored (docs/bitbucket-api.md, "Activity")."""
    return Endpoint(f"{_repository(workspace, repository)}/pullrequests/activity", pagelen=SMALL_PAGE)


def pull_request_activity(workspace: str, repository: str, number: int) -> Endpoint:
    path = f"{_repository(workspace, repository)}/pullrequests/{number}/activity"
    return Endpoint(path, pagelen=SMALL_PAGE, key="pull_request")


def comments(workspace: str, repository: str, number: int) -> Endpoint:
    return Endpoint(f"{_repository(workspace, repository)}/pullrequests/{number}/comments", key="id")


def pull_request_commits(workspace: str, repository: str, number: int) -> Endpoint:
    """Paged by an opaque cursor: `page=1` answers 400 (docs/bitbucket-api.md, "Paging")."""
    path = f"{_repository(workspace, repository)}/pullrequests/{number}/commits"
    return Endpoint(path, {"fields": _listed(COMMIT_FIELDS)}, key="hash")


def diffstat(workspace: str, repository: str, number: int) -> Endpoint:
    """The files that a pull request changes; answers with a redirect (docs/bitbucket-api.md, "Diffstat")."""
    path = f"{_repository(workspace, repository)}/pullrequests/{number}/diffstat"
    return Endpoint(path, {"fields": _listed(DIFFSTAT_FIELDS)})


def branch_commits(workspace: str, repository: str, branch: str) -> Endpoint:
    """Newest first by ancestry, so dates are not monotonic (docs/bitbucket-api.md, "Commits")."""
    path = f"{_repository(workspace, repository)}/commits/{quote(branch, safe='')}"
    return Endpoint(path, {"fields": _listed(COMMIT_FIELDS)}, key="hash")


_LONGEST_QUERY = 2000  # characters of include and exclude that still go into an address


def commits(workspace: str, repository: str, include: Sequence[str], exclude: Sequence[str] = ()) -> Endpoint:
    """Commits that the included revisions reach and the excluded do not; a long list is sent as a form.

    Raises:
        ValueError: nothing is included, which the POST form reads as "all branches".
    """
    if not include:
        raise ValueError("name at least one revision to include")
    path = f"{_repository(workspace, repository)}/commits"
    params: Params = {"fields": _listed(COMMIT_FIELDS)}
    chosen = {"include": list(include), **({"exclude": list(exclude)} if exclude else {})}
    if sum(len(revision) + 9 for revision in (*include, *exclude)) > _LONGEST_QUERY:
        return Endpoint(path, params, data=chosen, key="hash")
    return Endpoint(path, {**params, **chosen}, key="hash")


def commit(workspace: str, repository: str, revision: str) -> Endpoint:
    """One commit, by a whole or short hash; no branch with "/" in its name (docs/bitbucket-api.md, "Commits")."""
    path = f"{_repository(workspace, repository)}/commit/{quote(revision, safe='')}"
    return Endpoint(path, {"fields": ",".join(COMMIT_FIELDS)}, None)


def pipelines(workspace: str, repository: str, *, slash: bool = False) -> Endpoint:
    """Pipelines, newest first; walk with `numbered`: `next` drops the sort (docs/bitbucket-api.md, "Pipelines").

    `slash` ends the path with one.
    """
    path = f"{_repository(workspace, repository)}/pipelines{'/' if slash else ''}"
    return Endpoint(path, {"sort": "-created_on"}, key="uuid")


def pipeline(workspace: str, repository: str, pipeline: str) -> Endpoint:
    return Endpoint(f"{_repository(workspace, repository)}/pipelines/{quote(pipeline, safe='')}", pagelen=None)


def environments(workspace: str, repository: str, *, slash: bool = False) -> Endpoint:
    """Deployment environments; `slash` as for `pipelines`."""
    path = f"{_repository(workspace, repository)}/environments{'/' if slash else ''}"
    return Endpoint(path, {"fields": _listed(ENVIRONMENT_FIELDS)}, key="uuid")


def environment(workspace: str, repository: str, environment: str) -> Endpoint:
    """One environment; its uuid has braces, which must be quoted (docs/bitbucket-api.md, "Deployments")."""
    return Endpoint(f"{_repository(workspace, repository)}/environments/{quote(environment, safe='')}", pagelen=None)


def deployments(workspace: str, repository: str, *, slash: bool = False) -> Endpoint:
    """Deployments in an order that is not documented, without filters; `slash` as for `pipelines`."""
    path = f"{_repository(workspace, repository)}/deployments{'/' if slash else ''}"
    return Endpoint(path, {"fields": _listed(DEPLOYMENT_FIELDS)}, key="uuid")


def deployment(workspace: str, repository: str, deployment: str) -> Endpoint:
    path = f"{_repository(workspace, repository)}/deployments/{quote(deployment, safe='')}"
    return Endpoint(path, {"fields": ",".join(DEPLOYMENT_FIELDS)}, pagelen=None)


def hooks(workspace: str, repository: str | None = None) -> Endpoint:
    """Webhooks of the workspace, or of one repository. POST to `path` creates one."""
    parent = _workspace(workspace) if repository is None else _repository(workspace, repository)
    return Endpoint(f"{parent}/hooks", key="uuid")


def hook(workspace: str, uid: str, repository: str | None = None) -> Endpoint:
    """One webhook; its uid has braces, which must be quoted (docs/bitbucket-api.md, "Webhooks")."""
    return Endpoint(f"{hooks(workspace, repository).path}/{quote(uid, safe='')}", pagelen=None)


_NAMES = frozenset(
    {
        *("activity", "comments", "commit", "commits", "deployments", "diffstat", "environments", "hooks", "members"),
        *("pipelines", "pullrequests"),
    }
)


def kind_of(path: str) -> str:
    """The kind of endpoint, such as "pullrequests/comments", of a path below the base; requests are counted by it."""
    first, *rest = path.strip("/").split("/")
    # A workspace, slug or branch stands at these positions and may be called "commits" too.
    after_names = rest[2:] if first == "repositories" else rest[1:]
    return "/".join([word for word in after_names[:3:2] if word in _NAMES] or [first or "other"])
