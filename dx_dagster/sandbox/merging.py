"""Pushes, rebases and merges of a pull request, and their effect on the branches."""

from datetime import datetime, timedelta

from dx_dagster.sandbox.commits import Commit, is_ancestor, log
from dx_dagster.sandbox.people import User
from dx_dagster.sandbox.pull_requests import PullRequest

AT_THE_DESK = timedelta(seconds=40)  # between a merge by hand and its push
STRATEGIES = ("merge_commit", "squash", "fast_forward")


def push(pull_request: PullRequest, head: Commit, user: User | None, at: datetime) -> None:
    """The source branch moves, forward or by force."""
    if pull_request.fork is None:
        pull_request.repository.graph.branches[pull_request.source_branch] = head
        pull_request.repository.touch(at)
    pull_request.pushed(head, user, at)


def update_source(pull_request: PullRequest, author: User, at: datetime) -> None:
    """Merges the target branch into the source branch, as the button "Sync now" does."""
    graph = pull_request.repository.graph
    target = graph.branches[pull_request.target_branch]
    message = f"Merged {pull_request.target_branch} into {pull_request.source_branch}"
    merge = graph.add((pull_request.source, target), author, message, at)
    push(pull_request, merge, author, at)


def rebase(pull_request: PullRequest, author: User, at: datetime) -> None:
    """Force-pushes the same changes on top of today's target branch: new hashes, old dates, no merges."""
    graph = pull_request.repository.graph
    head = graph.branches[pull_request.target_branch]
    mine = [c for c in reversed(pull_request_commits(pull_request)) if len(c.parents) == 1]
    for old in mine:
        head = graph.add((head,), old.raw, old.message, old.date, user=old.user)
    if not mine:
        head = graph.add((head,), author, "Start over", at)
    push(pull_request, head, author, at)


def merge(pull_request: PullRequest, strategy: str, user: User, at: datetime) -> Commit:
    """Merges by one of `STRATEGIES`; a fast-forward that is not possible updates the source branch first."""
    graph = pull_request.repository.graph
    target = graph.branches[pull_request.target_branch]
    title = pull_request.title.replace("\0", "")
    subject = f"(pull request #{pull_request.number})"
    if strategy == "fast_forward":
        if not is_ancestor(target, pull_request.source):
            update_source(pull_request, user, at)
            at += timedelta(milliseconds=1)  # two entries of the feed, in this order
        commit = pull_request.source
    elif strategy == "squash":
        commit = graph.add((target,), pull_request.author or user, f"{title} {subject}\n", at)
    elif strategy == "merge_commit":
        message = f"Merged in {pull_request.source_branch} {subject}\n\n{title}\n"
        commit = graph.add((target, pull_request.source), user, message, at)
    else:
        raise ValueError(f"strategy must be one of {', '.join(STRATEGIES)}, not {strategy!r}")
    pull_request.target = target
    pull_request.close("MERGED", user, at, merge_commit=commit)
    _move_target(pull_request, commit, at)
    if pull_request.close_source_branch:
        close_source_branch(pull_request)
    return commit


def merge_by_push(pull_request: PullRequest, user: User, at: datetime) -> Commit:
    """Pushes the source's commits to the target branch, merged outside Bitbucket if needed.

    The pull request becomes MERGED without an update in its activity. The merge commit is the pushed head, which may be
    older than the pull request; the source branch stays.
    """
    graph = pull_request.repository.graph
    target, head = graph.branches[pull_request.target_branch], pull_request.source
    if not is_ancestor(target, head):
        message = f"Merge branch '{pull_request.source_branch}' into {pull_request.target_branch}\n"
        head = graph.add((target, head), user, message, at - AT_THE_DESK)
    pull_request.target = target
    pull_request.merged_by_push(user, at, head)
    _move_target(pull_request, head, at)
    return head


def _move_target(pull_request: PullRequest, head: Commit, at: datetime) -> None:
    pull_request.repository.graph.branches[pull_request.target_branch] = head
    pull_request.repository.touch(at)


def close_source_branch(pull_request: PullRequest) -> None:
    if pull_request.fork is None:
        pull_request.repository.graph.branches.pop(pull_request.source_branch, None)
        pull_request.source_closed = True


def pull_request_commits(pull_request: PullRequest) -> list[Commit]:
    """The commits of a pull request, newest first: reachable from the source and not from the target."""
    base = pull_request.target
    if pull_request.state == "OPEN":
        base = pull_request.repository.graph.branches.get(pull_request.target_branch, base)
    return log([pull_request.source], [base])
