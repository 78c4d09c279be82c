"""The expected rows after a complete import at this moment, from the world and not from any JSON.

Rows have natural keys where the tables have ids: `workspace`, `repository`, `user`, `author` and `merged_by_user` are
uuids in braces (None for an account that is gone), `pull` is the number beside its `repository`. `source_id` is what
Bitbucket calls a thing: a uuid in braces, or an int for pull requests and comments. Times are aware, UTC, in
microseconds; durations are seconds as floats; texts have no NUL characters, which PostgreSQL cannot store.

Forbidden repositories appear in bitbucket_repositories only. What a run alone can know (ids, marks, `allowlisted`,
`deleted_at`, e-mail addresses) is left out.
"""

from collections.abc import Callable, Collection, Iterable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from urllib.parse import quote

from dx_dagster.sandbox.codebases import Codebase
from dx_dagster.sandbox.commits import Commit, log
from dx_dagster.sandbox.deployments import Deployment, Environment
from dx_dagster.sandbox.diffstats import changed_files, refusal
from dx_dagster.sandbox.merging import pull_request_commits
from dx_dagster.sandbox.people import User
from dx_dagster.sandbox.pipelines import Pipeline
from dx_dagster.sandbox.pull_requests import Activity, Comment, PullRequest
from dx_dagster.sandbox.repositories import HostedRepository
from dx_dagster.sandbox.world import World

Row = dict[str, object]
SITE = "https://bitbucket.org"
REVIEWS = ("comment", "approval", "changes_requested")
SAME_MOMENT = timedelta(seconds=5)  # an event this close to `updated_on` is what moved it


def truth(world: World, since: datetime | None = None, *, sizes: bool = False) -> dict[str, list[Row]]:
    """Rows by table. Rebuilt at each call; compare as sets, the order means nothing.

    With `since` only what lies within that bound of an import: pull requests that are OPEN or were updated at or after
    it, with all their parts; pipelines and deployments created at or after it; commits of default branches dated at or
    after it; all repositories, environments and members; and of other users those who are met in these. `sizes`: an
    import with DX_PULL_REQUEST_SIZE=on, and enough requests for all of them.
    """
    after = since or datetime.min.replace(tzinfo=UTC)
    with world.lock:
        repositories = [r for r in world.repositories if not r.forbidden]
        pulls = [
            pull
            for repository in repositories
            for pull in repository.pull_requests.values()
            if pull.state == "OPEN" or pull.updated_on >= after
        ]
        pull_commits = {pull: _commits(pull) for pull in pulls}
        main_commits = {r: _main_commits(r, after) for r in repositories}
        with_pipelines = [r for r in repositories if r.has_pipelines]
        runs = [(r, pipeline) for r in with_pipelines for pipeline in r.pipelines if pipeline.created_on >= after]
        met = _met(pulls, [pipeline for _, pipeline in runs], [*pull_commits.values(), *main_commits.values()])
        within = set(pulls)
        return {
            "bitbucket_workspaces": [
                {"source_id": world.uuid, "slug": world.config.workspace, "name": world.name},
            ],
            "bitbucket_repositories": [_repository(world, r) for r in world.repositories],
            "bitbucket_users": _users(world, met),
            "bitbucket_pulls": [_pull(pull, pull_commits[pull]) | _size(pull, known=sizes) for pull in pulls],
            "bitbucket_pull_participants": [row for pull in pulls for row in _participants(pull)],
            "bitbucket_pull_activities": [row for pull in pulls for row in _activities(pull)],
            "bitbucket_pull_comments": [row for pull in pulls for row in _comments(pull)],
            "bitbucket_reviews": [row for pull in pulls for row in _reviews(pull)],
            "bitbucket_pull_commits": [
                {"pull": pull.number, **_commit(pull.repository, commit), "deleted": False}
                for pull, commits in pull_commits.items()
                for commit in commits
            ],
            "bitbucket_repository_default_branch_commits": [
                _commit(repository, commit) for repository, commits in main_commits.items() for commit in commits
            ],
            "bitbucket_pipelines": [_pipeline(repository, pipeline, within) for repository, pipeline in runs],
            "bitbucket_environments": [
                _environment(repository, environment)
                for repository in with_pipelines
                for environment in repository.environments
            ],
            "bitbucket_deployments": [
                _deployment(repository, deployment, after)
                for repository in with_pipelines
                for deployment in repository.deployments
                if deployment.release.created_on >= after
            ],
        }


def _clean(text: str | None) -> str | None:
    return None if text is None else text.replace("\0", "")


def _utc(at: datetime) -> datetime:
    return at.astimezone(UTC)


def _uuid(user: User | None) -> str | None:
    return user.uuid if user else None


def _html(repository: Codebase) -> str:
    return f"{SITE}/{repository.full_name}"


def _repository(world: World, repository: HostedRepository) -> Row:
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


def _main_commits(repository: HostedRepository, after: datetime) -> list[Commit]:
    found = log([repository.head]) if repository.main_branch else []
    return [commit for commit in found if commit.date >= after]


def _met(
    pulls: list[PullRequest], pipelines: Iterable[Pipeline], logs: Iterable[list[Commit]]
) -> Iterator[User | None]:
    """All accounts that the answers name, with repetitions."""
    for pull in pulls:
        yield from (pull.author, pull.closed_by, *pull.participants)
        yield from (entry.user for entry in pull.activity)
        yield from (comment.user for comment in pull.comments)
    yield from (pipeline.creator for pipeline in pipelines)
    for commits in logs:
        yield from (commit.user for commit in commits)


def _users(world: World, met: Iterable[User | None]) -> list[Row]:
    """Members and all other accounts met. `active` is membership, `bot` every type but user; `email` is Jira's.

    Without Jira it is that of a member whose address was known from elsewhere, else none.
    """
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
            "bot": _is_bot(user),
            "email": user.shown_email,
        }
        for user in everybody
    ]


def _is_bot(user: User) -> bool:
    return user.kind != "user"


def _end(pull: PullRequest) -> datetime | None:
    """When it was closed, as far as the answers show it.

    The first update to its state that is not before its opening; else `updated_on`, unless something else happened
    within `SAME_MOMENT` of that: a comment made, edited or deleted, an approval, a change request, another update;
    else, of a merged one, the merge commit's date, unless that is before the opening; else nobody knows.
    """
    if pull.state == "OPEN":
        return None
    closing = [e.at for e in pull.activity if e.update and e.update.state == pull.state and e.at >= pull.created_on]
    if closing:
        return min(closing)
    if not any(abs(at - pull.updated_on) <= SAME_MOMENT for at in _known_events(pull)):
        return pull.updated_on
    commit = pull.merge_commit if pull.state == "MERGED" else None
    return _utc(commit.date) if commit and commit.date >= pull.created_on else None


def _known_events(pull: PullRequest) -> Iterator[datetime]:
    shown = _visible(pull)
    yield from (entry.at for entry in pull.activity if shown(entry))
    for comment in pull.comments:
        yield from (comment.created_on, comment.updated_on)


def _first(pull: PullRequest, end: datetime | None, kinds: Collection[str], *, bots: bool = False) -> datetime | None:
    """The first event of these kinds by another person or, with `bots`, by another bot, while the pull request lived.

    An account that is gone is neither. Where the end is not known, nothing is too late.
    """
    shown = _visible(pull)
    return min(
        (
            entry.at
            for entry in pull.activity
            if entry.kind in kinds
            and entry.user is not None
            and entry.user is not pull.author
            and _is_bot(entry.user) is bots
            and shown(entry)
            and pull.created_on <= entry.at
            and (end is None or entry.at <= end)
        ),
        default=None,
    )


def _seconds(pull: PullRequest, at: datetime | None) -> float | None:
    return (at - pull.created_on).total_seconds() if at else None


def _pull(pull: PullRequest, commits: Collection[Commit]) -> Row:
    """One pull request.

    * merged_at, closed_at: see `_end`; closed_at for MERGED, DECLINED and SUPERSEDED alike.
    * open_to_first_review: the first comment (deleted since or not), approval or change request (taken back since or
      not, as long as the feed shows it) by a person other than the author, before the end; open_to_first_approval and
      open_to_first_bot_review likewise.
    * ready_for_review: when a draft became none; None for what never was a draft, and for what still is.
    * first_commit_at: the date of its oldest commit, of those that it has now.
    * source_commit_sha: None when the fork is gone, for then the API does not tell.
    """
    closed = _end(pull)
    merged = closed if pull.state == "MERGED" else None
    drafts = [entry for entry in pull.activity if entry.update]
    ready = next(
        (b.at for a, b in pairwise(drafts) if a.update and b.update and a.update.draft > b.update.draft),
        None,
    )
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
        "open_to_first_review": _seconds(pull, _first(pull, closed, REVIEWS)),
        "open_to_first_approval": _seconds(pull, _first(pull, closed, ("approval",))),
        "open_to_first_bot_review": _seconds(pull, _first(pull, closed, REVIEWS, bots=True)),
        "first_commit_at": min((_utc(commit.date) for commit in commits), default=None),
    }


def _size(pull: PullRequest, *, known: bool) -> Row:
    """None where Bitbucket does not tell it, or was not asked."""
    if not known or refusal(pull):
        return {"additions": None, "deletions": None, "changed_files": None}
    files = changed_files(pull)
    return {
        "additions": sum(file.added for file in files),
        "deletions": sum(file.removed for file in files),
        "changed_files": len(files),
    }


def _visible(pull: PullRequest) -> Callable[[Activity], bool]:
    """The reviews that the answers still show: comments from their endpoint, the rest from the feed only."""
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
    """The entries of the feed; a comment's entry keeps the time when the comment was written."""
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


def _reviews(pull: PullRequest) -> Iterator[Row]:
    """Each opinion of each reviewer with the comments since the one before; last, the comments after all of them.

    Only the last opinion can be withdrawn: one that another followed was one in its time.
    """
    shown = _visible(pull)
    opinions = [e for e in pull.activity if e.kind in {"approval", "changes_requested"} and shown(e)]
    standing = sorted(
        (comment for comment in pull.comments if not comment.deleted), key=lambda one: (one.created_on, one.number)
    )
    for user in dict.fromkeys([*(entry.user for entry in opinions), *(comment.user for comment in standing)]):
        if user is None or user is pull.author:
            continue
        theirs = [entry for entry in opinions if entry.user is user]
        if theirs and theirs[-1].taken_back:
            theirs.pop()
        left = [comment for comment in standing if comment.user is user]
        for opinion in theirs:
            until = [comment for comment in left if comment.created_on <= opinion.at]
            left = [comment for comment in left if comment not in until]
            state = "APPROVED" if opinion.kind == "approval" else "DECLINED"
            yield _review(pull, user, state, until, opinion.at)
        if left:
            yield _review(pull, user, "COMMENTED", left, left[0].created_on)


def _review(pull: PullRequest, user: User, state: str, comments: list[Comment], at: datetime) -> Row:
    """`source_url` is the first comment's where there is no opinion."""
    page = f"{_html(pull.repository)}/pull-requests/{pull.number}"
    return {
        "repository": pull.repository.uuid,
        "pull": pull.number,
        "user": user.uuid,
        "state": state,
        "comment_count": len(comments),
        "time_since_request": _seconds(pull, at) if at >= pull.created_on else None,
        "created_at": at,
        "updated_at": max([at, *(comment.updated_on for comment in comments)]),
        "source_url": f"{page}/_/diff#comment-{comments[0].number}" if state == "COMMENTED" else page,
    }


def _commits(pull: PullRequest) -> list[Commit]:
    """The commits that the endpoint of a pull request lists now; none when the fork is gone (404)."""
    if pull.fork_gone or (pull.source_closed and not pull.repository.config.commits_outlive_branch):
        return []
    return pull_request_commits(pull)


def _commit(repository: Codebase, commit: Commit) -> Row:
    return {
        "repository": repository.uuid,
        "sha": commit.sha,
        "author": _uuid(commit.user),
        "created": _utc(commit.date),
        "message": _clean(commit.message),
        "source_url": f"{_html(repository)}/commits/{commit.sha}",
    }


def _pipeline(repository: HostedRepository, pipeline: Pipeline, within: Collection[PullRequest]) -> Row:
    """`ref_name` is the branch, for a pull request's run its source branch; a bare commit has none.

    `pull` is None too where the pull request is not among those `within` the bound: it has no row.
    `source_url` is where the site shows the run; the API itself does not say.
    """
    pull = pipeline.pull_request
    return {
        "source_id": pipeline.uuid,
        "repository": repository.uuid,
        "build_number": pipeline.build_number,
        "run_number": pipeline.run_number,
        "state": pipeline.state,
        "stage": pipeline.stage,
        "result": pipeline.result,
        "trigger": pipeline.trigger,
        "ref_name": pull.source_branch if pull else pipeline.ref_name,
        "commit_sha": pipeline.commit.sha,
        "pull": pull.number if pull and pull in within else None,
        "user": _uuid(pipeline.creator),
        "created_at": pipeline.created_on,
        "completed_at": pipeline.completed_on,
        "duration": pipeline.duration,
        "source_url": f"{_html(repository)}/pipelines/results/{pipeline.build_number}",
    }


def _environment(repository: HostedRepository, environment: Environment) -> Row:
    return {
        "source_id": environment.uuid,
        "repository": repository.uuid,
        "name": environment.name,
        "slug": environment.slug,
        "type": environment.kind,
        "rank": environment.rank,
        "hidden": environment.hidden,
    }


def _deployment(repository: HostedRepository, deployment: Deployment, after: datetime) -> Row:
    """`pipeline` is None where the run lies before the bound: it has no row."""
    release = deployment.release
    page = f"{_html(repository)}/addon/pipelines/home#!/results/{release.pipeline.build_number}"
    shown = deployment.state != "UNDEPLOYED"
    return {
        "source_id": deployment.uuid,
        "repository": repository.uuid,
        "environment": deployment.environment.uuid,
        "pipeline": release.pipeline.uuid if release.pipeline.created_on >= after else None,
        "release_name": f"#{release.pipeline.build_number}",
        "commit_sha": release.pipeline.commit.sha,
        "state": deployment.state,
        "status": deployment.status,
        "created_at": release.created_on,
        "started_at": deployment.started_on,
        "completed_at": deployment.completed_on,
        "updated_at": deployment.updated_on,
        "source_url": f"{page}/steps/{quote(deployment.step)}" if shown else page,
    }
