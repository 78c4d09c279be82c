"""What the tables must hold after a complete import at this moment, worked out from the world and not from any JSON.

Rows have natural keys where the tables have ids: `workspace`, `repository`, `user`, `author` and `merged_by_user` are
uuids in braces (None for an account that is gone), `pull` is the number beside its `repository`. `source_id` is what
Bitbucket calls a thing: a uuid in braces, or an int for pull requests and comments. Times are aware, UTC, in
microseconds; durations are seconds as floats; texts have no NUL characters, which PostgreSQL cannot store.

Forbidden repositories appear in bitbucket_repositories only. What a run alone can know (ids, marks, `allowlisted`,
`deleted_at`, e-mail addresses) is left out.
"""

from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from itertools import pairwise
from typing import TYPE_CHECKING

from dx_dagster.sandbox.commits import Commit, log
from dx_dagster.sandbox.people import User
from dx_dagster.sandbox.pipelines import Pipeline
from dx_dagster.sandbox.pull_requests import Activity, PullRequest
from dx_dagster.sandbox.repositories import Repository, pull_request_commits

if TYPE_CHECKING:
    from dx_dagster.sandbox.world import World

Row = dict[str, object]
SITE = "https://bitbucket.org"
REVIEWS = ("comment", "approval", "changes_requested")


def truth(world: "World") -> dict[str, list[Row]]:
    """Rows by table. Rebuilt at each call; compare as sets, the order means nothing."""
    with world.lock:
        repositories = [r for r in world.repositories if not r.forbidden]
        pulls = [pull for repository in repositories for pull in repository.pull_requests.values()]
        pull_commits = {pull: _commits(pull) for pull in pulls}
        main_commits = {r: log([r.head]) if r.main_branch else [] for r in repositories}
        met = _met(repositories, pulls, [*pull_commits.values(), *main_commits.values()])
        return {
            "bitbucket_workspaces": [
                {"source_id": world.uuid, "slug": world.config.workspace, "name": world.name},
            ],
            "bitbucket_repositories": [_repository(world, r) for r in world.repositories],
            "bitbucket_users": _users(world, met),
            "bitbucket_pulls": [_pull(pull) for pull in pulls],
            "bitbucket_pull_participants": [row for pull in pulls for row in _participants(pull)],
            "bitbucket_pull_activities": [row for pull in pulls for row in _activities(pull)],
            "bitbucket_pull_comments": [row for pull in pulls for row in _comments(pull)],
            "bitbucket_pull_commits": [
                {"pull": pull.number, **_commit(pull.repository, commit), "deleted": False}
                for pull, commits in pull_commits.items()
                for commit in commits
            ],
            "bitbucket_repository_default_branch_commits": [
                _commit(repository, commit) for repository, commits in main_commits.items() for commit in commits
            ],
            "bitbucket_pipelines": [_pipeline(r, p) for r in repositories if r.has_pipelines for p in r.pipelines],
        }


def _clean(text: str | None) -> str | None:
    return None if text is None else text.replace("\0", "")


def _utc(at: datetime) -> datetime:
    return at.astimezone(UTC)


def _uuid(user: User | None) -> str | None:
    return user.uuid if user else None


def _html(repository: Repository) -> str:
    return f"{SITE}/{repository.full_name}"


def _repository(world: "World", repository: Repository) -> Row:
    """`default_branch` is None for an empty repository."""
    return {
        "source_id": repository.uuid,
        "workspace": world.uuid,
        "name": repository.name,
        "slug": repository.slug,
        "description": _clean(repository.description),
        "private": repository.is_private,
        "project_key": repository.project.key,
        "created_at": repository.created_on,
        "updated_at": repository.updated_on,
        "source_url": _html(repository),
        "default_branch": repository.main_branch,
        "api_accessible": not repository.forbidden,
    }


def _met(
    repositories: list[Repository], pulls: list[PullRequest], logs: Iterable[list[Commit]]
) -> Iterator[User | None]:
    """Everybody whom the answers name, with repetitions."""
    for pull in pulls:
        yield from (pull.author, pull.closed_by, *pull.participants)
        yield from (entry.user for entry in pull.activity)
        yield from (comment.user for comment in pull.comments)
    for repository in repositories:
        if repository.has_pipelines:
            yield from (pipeline.creator for pipeline in repository.pipelines)
    for commits in logs:
        yield from (commit.user for commit in commits)


def _users(world: "World", met: Iterable[User | None]) -> list[Row]:
    """Members and everybody met. `active` is membership, `bot` the API's type app_user; `email` is what Jira tells."""
    members = set(world.people.members)
    everybody = dict.fromkeys([*world.people.members, *(user for user in met if user is not None)])
    return [
        {
            "source_id": user.uuid,
            "workspace": world.uuid,
            "name": user.display_name,
            "nickname": user.nickname,
            "account_id": user.account_id,
            "active": user in members,
            "bot": user.kind == "app_user",
            "email": user.shown_email,
        }
        for user in everybody
    ]


def _first(pull: PullRequest, wanted: Callable[[Activity], bool]) -> datetime | None:
    return min((entry.at for entry in pull.activity if wanted(entry)), default=None)


def _seconds(pull: PullRequest, at: datetime | None) -> float | None:
    return (at - pull.created_on).total_seconds() if at else None


def _pull(pull: PullRequest) -> Row:
    """One pull request.

    * merged_at, closed_at: the feed's first entry in that state; closed_at for MERGED, DECLINED and SUPERSEDED alike.
    * open_to_first_review: the first comment (deleted since or not), approval or change request (taken back since or
      not, as long as the feed shows it) by a known account other than the author's; open_to_first_approval likewise.
    * ready_for_review: when a draft became none; None for what never was a draft, and for what still is.
    * source_commit_sha: None when the fork is gone, for then the API does not tell.
    """
    closed = None if pull.state == "OPEN" else _first(pull, lambda e: bool(e.update and e.update.state == pull.state))
    merged = closed if pull.state == "MERGED" else None
    drafts = [entry for entry in pull.activity if entry.update]
    ready = next(
        (b.at for a, b in pairwise(drafts) if a.update and b.update and a.update.draft > b.update.draft),
        None,
    )
    shown = _visible(pull)

    def by_other(entry: Activity, kinds: tuple[str, ...]) -> bool:
        return entry.kind in kinds and entry.user is not pull.author and shown(entry)

    return {
        "source_id": pull.number,
        "repository": pull.repository.uuid,
        "user": _uuid(pull.author),
        "merged_by_user": _uuid(pull.closed_by) if pull.state == "MERGED" else None,
        "title": _clean(pull.title),
        "state": pull.state,
        "draft": pull.draft,
        "ready_for_review": ready,
        "source_branch": pull.source_branch,
        "target_branch": pull.target_branch,
        "source_commit_sha": None if pull.fork_gone else pull.source.sha,
        "merge_commit_sha": pull.merge_commit.sha if pull.merge_commit else None,
        "comment_count": pull.comment_count,
        "task_count": pull.task_count,
        "created_at": pull.created_on,
        "updated_at": pull.updated_on,
        "merged_at": merged,
        "closed_at": closed,
        "source_url": f"{_html(pull.repository)}/pull-requests/{pull.number}",
        "open_to_merge": _seconds(pull, merged),
        "open_to_first_review": _seconds(pull, _first(pull, lambda e: by_other(e, REVIEWS))),
        "open_to_first_approval": _seconds(pull, _first(pull, lambda e: by_other(e, ("approval",)))),
    }


def _visible(pull: PullRequest) -> Callable[[Activity], bool]:
    """Which judgements can still be known: comments always, from the comments endpoint; the rest from the feed only."""
    keeps = pull.repository.config.feed_keeps_taken_back
    return lambda entry: entry.kind == "comment" or keeps or not entry.taken_back


def _participants(pull: PullRequest) -> Iterator[Row]:
    for participant in pull.participants.values():
        yield {
            "repository": pull.repository.uuid,
            "pull": pull.number,
            "user": participant.user.uuid,
            "role": participant.role,
            "approved": participant.approved,
            "state": participant.state,
            "participated_on": participant.participated_on,
        }


def _activities(pull: PullRequest) -> Iterator[Row]:
    """What the feed shows; the time of a comment's entry is when it was written, whatever happened to it since."""
    shows_deleted, visible = pull.repository.config.feed_shows_deleted, _visible(pull)
    for entry in pull.activity:
        comment = entry.comment
        if not visible(entry) or (comment is not None and comment.deleted and not shows_deleted):
            continue
        yield {
            "repository": pull.repository.uuid,
            "pull": pull.number,
            "user": _uuid(entry.user),
            "kind": entry.kind,
            "created_at": entry.at,
            "state": entry.update.state if entry.update else None,
            "comment_source_id": comment.number if comment else None,
        }


def _comments(pull: PullRequest) -> Iterator[Row]:
    """Deleted comments stay, with empty content."""
    for comment in pull.comments:
        path, old, new = comment.inline or (None, None, None)
        yield {
            "source_id": comment.number,
            "repository": pull.repository.uuid,
            "pull": pull.number,
            "user": _uuid(comment.user),
            "parent_source_id": comment.parent.number if comment.parent else None,
            "content": _clean(comment.text),
            "inline_path": path,
            "inline_from": old,
            "inline_to": new,
            "created_at": comment.created_on,
            "updated_at": comment.updated_on,
            "deleted": comment.deleted,
            "source_url": f"{_html(pull.repository)}/pull-requests/{pull.number}/_/diff#comment-{comment.number}",
        }


def _commits(pull: PullRequest) -> list[Commit]:
    """What the pull request's commits endpoint lists now; nothing when the fork is gone (it answers 404)."""
    if pull.fork_gone or (pull.source_closed and not pull.repository.config.commits_outlive_branch):
        return []
    return pull_request_commits(pull)


def _commit(repository: Repository, commit: Commit) -> Row:
    return {
        "repository": repository.uuid,
        "sha": commit.sha,
        "author": _uuid(commit.user),
        "created": _utc(commit.date),
        "message": _clean(commit.message),
        "source_url": f"{_html(repository)}/commits/{commit.sha}",
    }


def _pipeline(repository: Repository, pipeline: Pipeline) -> Row:
    """`ref_name` is the branch, for a pull request's run its source branch; a bare commit has none.

    `source_url` is where the site shows the run; the API itself does not say.
    """
    pull = pipeline.pull_request
    return {
        "source_id": pipeline.uuid,
        "repository": repository.uuid,
        "build_number": pipeline.build_number,
        "state": pipeline.state,
        "result": pipeline.result,
        "trigger": pipeline.trigger,
        "ref_name": pull.source_branch if pull else pipeline.ref_name,
        "commit_sha": pipeline.commit.sha,
        "pull": pull.number if pull else None,
        "user": _uuid(pipeline.creator),
        "created_at": pipeline.created_on,
        "completed_at": pipeline.completed_on,
        "duration": pipeline.duration,
        "source_url": f"{_html(repository)}/pipelines/results/{pipeline.build_number}",
    }
