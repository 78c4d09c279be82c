"""The API's JSON for pull requests, their comments and the activity feed."""

from collections.abc import Callable, Iterable
from typing import Any

from dx_dagster.sandbox.codebases import Codebase, Fork
from dx_dagster.sandbox.commits import Commit
from dx_dagster.sandbox.fields import ABSENT, Selection, Tree
from dx_dagster.sandbox.pull_requests import Activity, Comment, Participant, PullRequest, Update
from dx_dagster.sandbox.rendering import (
    API,
    SITE,
    Json,
    commit_reference,
    iso,
    links,
    person,
    repository_reference,
    text,
)

BELOW = (
    "commits",
    "approve",
    "request-changes",
    "diff",
    "diffstat",
    "comments",
    "activity",
    "merge",
    "decline",
    "statuses",
)


def _branch(
    repository: Codebase | Fork,
    branch: str,
    commit: Commit,
    asked: Tree,
    *,
    gone: bool = False,
    no_commit: bool = False,
) -> Json:
    """One end of a pull request. A deleted fork leaves neither repository nor commit, a deleted branch no commit."""
    full_name = repository.full_name
    rendered: Json = {"branch": {"name": branch}, "commit": None, "repository": None}
    if not gone:
        rendered["repository"] = repository_reference(repository)
        rendered["commit"] = None if no_commit else _commit(full_name, commit, asked.get("commit", {}))
    return rendered


def _source(pull_request: PullRequest, commit: Commit, asked: Tree) -> Json:
    repository = pull_request.fork or pull_request.repository
    return _branch(repository, pull_request.source_branch, commit, asked, gone=pull_request.fork_gone)


def _destination(pull_request: PullRequest, branch: str, commit: Commit, asked: Tree) -> Json:
    gone = branch not in pull_request.repository.graph.branches and pull_request.target_gone
    return _branch(pull_request.repository, branch, commit, asked, no_commit=gone)


def _links(pull_request: PullRequest) -> Json:
    base: Json = reference(pull_request)["links"]
    self_link = base["self"]["href"]
    return base | {name: {"href": f"{self_link}/{name}"} for name in BELOW}


def reference(pull_request: PullRequest) -> Json:
    """A pull request inside another object."""
    full_name, number = pull_request.repository.full_name, pull_request.number
    return {
        "type": "pullrequest",
        "id": number,
        "title": pull_request.title,
        "draft": pull_request.draft,
        "links": links(
            self=f"{API}/repositories/{full_name}/pullrequests/{number}",
            html=f"{SITE}/{full_name}/pull-requests/{number}",
        ),
    }


def participant(participant: Participant) -> Json:
    return {
        "type": "participant",
        "user": person(participant.user),
        "role": participant.role,
        "approved": participant.approved,
        "state": participant.state,
        "participated_on": iso(participant.participated_on) if participant.participated_on else None,
    }


def _merge_commit(pull_request: PullRequest, asked: Tree) -> Json | None:
    merge = pull_request.merge_commit
    return _commit(pull_request.repository.full_name, merge, asked) if merge else None


def _commit(full_name: str, commit: Commit, asked: Tree) -> Json:
    """A short reference, with what `fields` asks for of the whole commit."""
    rendered = commit_reference(full_name, commit.short)
    if "date" in asked:
        rendered["date"] = commit.date.isoformat(timespec="seconds")
    if "message" in asked:
        rendered["message"] = commit.message
    return rendered


PARTS: dict[str, Callable[[PullRequest, Tree], Any]] = {
    "type": lambda _, __: "pullrequest",
    "id": lambda p, _: p.number,
    "title": lambda p, _: p.title,
    "draft": lambda p, _: p.draft,
    "links": lambda p, _: _links(p),
    "description": lambda p, _: p.description,
    "state": lambda p, _: p.state,
    "queued": lambda _, __: False,
    "comment_count": lambda p, _: p.comment_count,
    "task_count": lambda p, _: p.task_count,
    "merge_commit": _merge_commit,
    "close_source_branch": lambda p, _: p.close_source_branch,
    "closed_by": lambda p, _: person(p.closed_by),
    "author": lambda p, _: person(p.author),
    "reason": lambda p, _: p.reason,
    "created_on": lambda p, _: iso(p.created_on),
    "updated_on": lambda p, _: iso(p.updated_on),
    "destination": lambda p, asked: _destination(p, p.target_branch, p.target, asked),
    "source": lambda p, asked: _source(p, p.source, asked),
    "summary": lambda p, _: text(p.description),
    "participants": lambda p, _: [participant(one) for one in p.participants.values()],
    "reviewers": lambda p, _: [person(user) for user in p.reviewers],
    "rendered": lambda p, _: {"title": text(p.title), "description": text(p.description)},
}
ON_REQUEST = ("participants", "reviewers", "rendered")
LISTED = tuple(name for name in PARTS if name not in ON_REQUEST)


def render(pull_request: PullRequest, names: Iterable[str], selection: Selection) -> Json:
    """`names` is `LISTED` in lists, which leave out participants, reviewers and rendered, and `PARTS` elsewhere."""

    def part(name: str, asked: Tree) -> Any:
        return PARTS[name](pull_request, asked) if name in PARTS else ABSENT

    return selection.assemble(names, part)


def comment(pull_request: PullRequest, comment: Comment) -> Json:
    """Deleted comments stay, with empty content. `parent` and `inline` are absent where there are none."""
    pull = reference(pull_request)
    self_link, html = pull["links"]["self"]["href"], pull["links"]["html"]["href"]
    rendered: Json = {
        "id": comment.number,
        "created_on": iso(comment.created_on),
        "updated_on": iso(comment.updated_on),
        "content": text(comment.text),
        "user": person(comment.user),
        "deleted": comment.deleted,
        "pending": False,
        "type": "pullrequest_comment",
        "links": links(self=f"{self_link}/comments/{comment.number}", html=f"{html}/_/diff#comment-{comment.number}"),
        "pullrequest": pull,
    }
    if comment.parent is not None:
        parent = comment.parent.number
        rendered["parent"] = {"id": parent, "links": links(self=f"{self_link}/comments/{parent}")}
    if comment.inline is not None:
        path, old, new = comment.inline
        rendered["inline"] = {"path": path, "from": old, "to": new, "outdated": False, "context_lines": ""}
    return rendered


def _update(pull_request: PullRequest, entry: Activity, update: Update) -> Json:
    return {
        "state": update.state,
        "draft": update.draft,
        "title": update.title,
        "description": pull_request.description,
        "reviewers": [person(user) for user in update.reviewers],
        "changes": update.changes,
        "reason": update.reason,
        "author": person(entry.user),
        "date": iso(entry.at),
        "destination": _destination(pull_request, update.target_branch, update.target, {}),
        "source": _source(pull_request, update.source, {}),
    }


def activity(entry: Activity) -> Json:
    """An entry of the feed: `pull_request` and exactly one of comment, update, approval, changes_requested."""
    pull_request = entry.pull_request
    pull = reference(pull_request)
    inside: dict[str, Any]
    if entry.comment is not None:
        inside = comment(pull_request, entry.comment)
    elif entry.update is not None:
        inside = _update(pull_request, entry, entry.update)
    else:
        inside = {"date": iso(entry.at), "user": person(entry.user), "pullrequest": pull}
    return {"pull_request": pull, entry.kind: inside}
