"""Commits: of a repository, of a revision, of a pull request."""

from collections.abc import Sequence
from typing import Any
from urllib.parse import parse_qsl

from dx_dagster.sandbox import rendering
from dx_dagster.sandbox.answers import Refused, error
from dx_dagster.sandbox.calls import IncomingCall, encode, read_cursor, write_cursor
from dx_dagster.sandbox.codebases import Codebase
from dx_dagster.sandbox.commits import Commit
from dx_dagster.sandbox.fields import Selection
from dx_dagster.sandbox.repositories import HostedRepository
from dx_dagster.sandbox.routes_pulls import find

ALL_COMMITS = 100  # the largest page


def commit(call: IncomingCall) -> bytes:
    repository = call.repository(html=True)
    found = repository.graph.find(call.path["revision"])
    if found is None:
        raise Refused(404, error(f"Commit not found: {call.path['revision']}", typed=False))
    return _render(call, repository, found, call.selection)


def commits(call: IncomingCall) -> bytes:
    """`git log` of a revision, of `include`, or of every branch; minus `exclude`. `q` and `sort` are ignored."""
    repository = call.repository(html=True)
    asked = call.query.multi_items() + parse_qsl(call.body.decode())
    include = [value for name, value in asked if name == "include"]
    exclude = [value for name, value in asked if name == "exclude"]
    if call.path.get("revision"):
        include.append(call.path["revision"])
    if call.query.get("page"):
        return _walk(call, repository, [], [])
    wanted, unwanted = _resolve(call, repository, include), _resolve(call, repository, exclude)
    return _walk(call, repository, wanted if include else list(repository.graph.branches.values()), unwanted)


def pull_request_commits(call: IncomingCall) -> bytes:
    """The commits of a pull request, newest first; 404 when its fork is gone."""
    found = find(call)
    repository = found.repository
    if found.fork_gone:
        raise Refused(404, error("The source repository of this pull request no longer exists.", typed=False))
    if found.source_closed and not repository.config.commits_outlive_branch:
        return call.cursor_page([], lambda _item, _selection: b"", call.pagelen(ALL_COMMITS), {})
    base = found.target
    if found.state == "OPEN":
        base = repository.graph.branches.get(found.target_branch, base)
    return _walk(call, repository, [found.source], [base])


def _resolve(call: IncomingCall, repository: HostedRepository, revisions: Sequence[str]) -> list[Commit]:
    found = {revision: repository.graph.find(revision) for revision in revisions}
    missing = [revision for revision, commit in found.items() if commit is None]
    if missing:
        named: dict[str, Any] = {} if call.faults.revisions_unnamed else {"data": {"shas": missing}}
        raise Refused(404, error("Commit not found", **named))
    return [commit for commit in found.values() if commit is not None]


def _walk(call: IncomingCall, repository: Codebase, include: Sequence[Commit], exclude: Sequence[Commit]) -> bytes:
    """A page of a walk. The cursor stands for commits, not names: the walk goes on even when branches have moved."""
    pagelen, cursor, start = call.pagelen(ALL_COMMITS), call.query.get("page"), 0
    if cursor:
        start, name = read_cursor(cursor, 2)
        if name not in call.memory.cursors:
            raise Refused(400, error("Invalid page"))
        include, exclude = call.memory.cursors[name]
    walk = call.faults.left_of("commits", call.memory.walk(repository, include, exclude))
    end, following = start + pagelen, {}
    if end < len(walk):
        following["page"] = write_cursor(end, call.memory.remember(include, exclude))
    page = walk[start:end]
    return call.cursor_page(page, lambda c, selection: _render(call, repository, c, selection), pagelen, following)


def _render(call: IncomingCall, repository: Codebase, commit: Commit, selection: Selection) -> bytes:
    def render() -> bytes:
        rendered = rendering.commit(repository, commit)
        return encode(selection.apply(rendered))

    key = ("commit", repository.uuid, commit.sha, selection.text)
    return call.memory.rendered(key, repository.names_version, render)
