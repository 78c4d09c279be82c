"""Commits of pull requests that the history of a repository tells, without a request for each."""

import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dx_dagster.importer.commits import step
from dx_dagster.importer.commits.ancestry import SHORT, Ancestry
from dx_dagster.importer.commits.default_branch import import_branches
from dx_dagster.importer.commits.proofs import prove
from dx_dagster.importer.commits.step import import_commits
from dx_dagster.importer.commits.trust import CERTAIN
from dx_dagster.importer.pull_requests import import_pull_requests
from dx_dagster.importer.report import Report
from dx_dagster.importer.repositories import import_repositories
from dx_dagster.importer.workspace import Workspace
from dx_dagster.sandbox import Sandbox, WorldConfig
from dx_dagster.sandbox.history import integration_branch
from dx_dagster.sandbox.pull_requests import PullRequest
from dx_dagster.warehouse.imported.commits import Targets
from dx_dagster.warehouse.imported.pulls import Heads
from dx_dagster_tests.importing import Imported, Installation

WORLD = WorldConfig(seed=3, repositories=6, pull_requests=240, members=8)
UNKNOWN, KNOWN = Targets(frozen=False, past=False), Targets(frozen=True, past=True)
Graph = list[list[int]]


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    """For each commit its parents, all of them older."""
    size = draw(st.integers(1, 25))
    return [draw(st.lists(st.integers(0, i - 1), max_size=3, unique=True)) if i else [] for i in range(size)]


def reached(graph: Graph, tip: int) -> set[int]:
    return {tip}.union(*(reached(graph, parent) for parent in graph[tip]))


@given(graphs(), st.data())
def test_an_ancestry_says_what_git_log_says(graph, data):
    commits = st.integers(0, len(graph) - 1)
    tip, base, head = data.draw(commits), data.draw(commits), data.draw(commits)
    names = [f"{number:012x}{number:028x}" for number in range(len(graph))]
    rows = [(names[number], [names[parent] for parent in parents]) for number, parents in enumerate(graph)]
    branch = reached(graph, head)
    ancestry = Ancestry(rows[number] for number in data.draw(st.permutations(sorted(branch))))
    ancestry.add(rows)

    def named(numbers: set[int]) -> set[str]:
        return {names[number] for number in numbers}

    assert ancestry.difference(names[tip], names[base]) == named(reached(graph, tip) - reached(graph, base))
    assert ancestry.beside(names[tip], ancestry.branch) == named(reached(graph, tip) - branch)
    assert ancestry.find(names[tip][:SHORT]) == names[tip]
    by_base = ancestry.reach(names[base]) or b""
    assert ancestry.beside(names[tip], by_base) == named(reached(graph, tip) - reached(graph, base))
    assert ancestry.holds(by_base, names[head]) == (head in reached(graph, base))


def test_an_ancestry_with_a_gap_does_not_guess():
    ancestry = Ancestry([("b" * 40, ["a" * 40]), ("c" * 40, ["d" * 40])])
    assert ancestry.difference("b" * 40, "c" * 40) is None
    assert ancestry.beside("f" * 40, ancestry.branch) is None
    twins = Ancestry([("e" * SHORT + "1" * 28, []), ("e" * SHORT + "2" * 28, [])])
    assert twins.find("e" * SHORT) is None


def test_a_merge_commit_that_did_not_bring_the_source_proves_nothing():
    first, source, merge, later = (letter * 40 for letter in "abcd")
    ancestry = Ancestry([(first, []), (source, [first]), (merge, [first, source]), (later, [merge])])
    heads = Heads("1", "MERGED", "main", source, first, merge, from_fork=False, closes_source=False)
    assert prove(heads, ancestry, UNKNOWN) == ("merged", {source})
    # Merged by a push of several commits, of which the last is named: the target had the source before that one.
    assert prove(heads._replace(merge=later), ancestry, UNKNOWN) is None


def test_a_fast_forward_is_told_from_where_its_target_was_if_that_is_known():
    first, second, source = (letter * 40 for letter in "abc")
    ancestry = Ancestry([(first, []), (second, [first]), (source, [second])])
    heads = Heads("1", "MERGED", "main", source, second, source, from_fork=False, closes_source=False)
    assert prove(heads, ancestry, UNKNOWN) == ("fast-forwarded", {source})
    # The target may have got the second commit before the merge, unless it is known to be the one at the merge.
    assert prove(heads._replace(target=first), ancestry, UNKNOWN) is None
    assert prove(heads._replace(target=first), ancestry, KNOWN) == ("fast-forwarded", {second, source})
    # Where the API shows the target after the merge, it says nothing.
    assert prove(heads._replace(target=source), ancestry, KNOWN) is None


def test_a_merge_of_rebased_copies_counts_where_it_moved_the_target():
    first, second, source, copy, merge = (letter * 40 for letter in "abcde")
    ancestry = Ancestry([(first, []), (second, [first]), (copy, [second]), (merge, [second, copy])])
    ancestry.add([(source, [first])])
    heads = Heads("1", "MERGED", "main", source, second, merge, from_fork=False, closes_source=True)
    assert prove(heads, ancestry, UNKNOWN) == ("rebased (branch closed)", {source})
    # Of another number of commits they are no copies for sure.
    two = Ancestry([(first, []), (second, [first]), (copy, [second]), ("f" * 40, [copy]), (merge, [second, "f" * 40])])
    two.add([(source, [first])])
    assert prove(heads, two, UNKNOWN) is None
    assert prove(heads._replace(target=first), ancestry, UNKNOWN) is None


def test_a_declined_pull_request_is_told_only_where_its_target_is_not_todays():
    first, source, later = (letter * 40 for letter in "abc")
    ancestry = Ancestry([(first, []), (source, [first]), (later, [source])])
    # Its commit came to the branch afterwards by another way. Whoever names today's head hides that.
    heads = Heads("1", "DECLINED", "main", source, later, None, from_fork=False, closes_source=False)
    assert prove(heads, ancestry, UNKNOWN) is None
    assert prove(heads._replace(target=first), ancestry, KNOWN) is None
    beside = Ancestry([(first, []), (later, [first])])
    beside.add([(source, [first])])
    assert prove(heads._replace(target=first), beside, KNOWN) == ("declined", {source})
    assert prove(heads._replace(target=first), beside, UNKNOWN) is None


class Comparing(Installation):
    """A workspace whose rows are compared with the truth after every import."""

    def sync(self, *, within: float | None = None, **how: Any) -> Imported:
        self.sandbox.requests.reset()
        done = super().sync(within=within, **how)
        assert self.differences() == {}
        return done

    def lists_asked(self) -> set[str]:
        """Pull requests whose commits were asked for."""
        paths = (request.path.partition("?")[0] for request in self.sandbox.requests)
        return {path for path in paths if re.search(r"/pullrequests/\d+/commits$", path)}


@pytest.fixture
def connect(database_url: str) -> Iterator[Callable[[WorldConfig], Comparing]]:
    with ExitStack() as stack:
        yield lambda world: Comparing(database_url, stack.enter_context(Sandbox(world)))


def merged(sandbox: Sandbox, strategy: str) -> list[PullRequest]:
    """Into the default branch, from a branch of the same repository."""
    found = []
    for repository in sandbox.world.repositories:
        for pull in repository.pull_requests.values():
            commit = pull.merge_commit
            if commit and pull.fork is None and pull.target_branch == repository.main_branch:
                made = "fast_forward" if commit is pull.source else ("squash", "merge_commit")[len(commit.parents) - 1]
                found += [pull] if made == strategy else []
    return found


def into_others(sandbox: Sandbox) -> list[PullRequest]:
    """Into another branch than the default one, from a branch of the same repository."""
    pulls = sandbox.world.pull_requests
    return [pull for pull in pulls if pull.fork is None and pull.target_branch != pull.repository.main_branch]


def test_history_tells_the_commits_of_merged_pull_requests_by_every_strategy(connect):
    # Large enough for its merges to show that Bitbucket names the target of a merged pull request as it was then.
    world = replace(WORLD, pull_requests=720, into_other_branches=0.2)
    installation = connect(world)
    installation.sync()
    asked = installation.lists_asked()
    assert len(asked) < 0.2 * world.pull_requests
    unmerged = [pull for pull in into_others(installation.sandbox) if pull.state != "MERGED" and not pull.target_gone]
    assert len(unmerged) > 20
    assert sum(path_of(pull) in asked for pull in unmerged) < 0.6 * len(unmerged)
    for strategy in ("merge_commit", "squash", "fast_forward"):
        pulls = merged(installation.sandbox, strategy)
        assert len(pulls) > 20
        assert sum(path_of(pull) in asked for pull in pulls) <= 12
    without_fork = [pull for pull in installation.sandbox.world.pull_requests if pull.fork_gone]
    assert len(without_fork) > 8
    assert sum(path_of(pull) in asked for pull in without_fork) <= CERTAIN


def path_of(pull: PullRequest) -> str:
    return f"/2.0/repositories/acme/{quote(pull.repository.uuid, safe='')}/pullrequests/{pull.number}/commits"


def test_where_the_endpoint_forgets_closed_branches_it_is_believed(connect):
    installation = connect(replace(WORLD, commits_outlive_branch=False))
    installation.sync()
    assert "(branch closed) pull requests are requested one by one" in "".join(installation.warnings)
    assert len(installation.lists_asked()) > 0.3 * WORLD.pull_requests


def test_parts_of_repositories_and_branches_that_were_moved_get_the_right_commits(connect, monkeypatch):
    monkeypatch.setattr(step, "PART", 25)  # so that repositories have many parts
    installation = connect(replace(WORLD, into_other_branches=0.6))
    world = installation.sandbox.world
    first, second = [one for one in world.open_repositories if len(one.pull_requests) > 20][:2]
    # One branch was moved back: what its pull requests name as its head, it does not reach. Another has nothing new.
    branches, branch = first.graph.branches, integration_branch(first)
    branches[branch] = branches[branch].parents[0].parents[0]
    second.graph.branches[integration_branch(second)] = second.head.parents[0]
    installation.sync()
    world.step(20)
    installation.sync()


@pytest.mark.parametrize("unnamed", [False, True], ids=["named", "unnamed"])
def test_sources_that_bitbucket_no_longer_has_do_not_hide_the_others(unnamed, connect):
    installation = connect(WORLD)
    installation.sandbox.faults.revisions_unnamed = unnamed
    lost = merged(installation.sandbox, "squash")[:: 16 if unnamed else 4]
    for pull in lost:
        pull.repository.graph.forget(pull.source)
    installation.sync()
    assert {path_of(pull) for pull in lost} <= installation.lists_asked()
    assert len(installation.lists_asked()) < 0.5 * WORLD.pull_requests


@pytest.mark.parametrize("answer", ["400", "404", "410"])
def test_where_many_revisions_cannot_be_asked_at_once_each_pull_request_is(answer, connect):
    installation = connect(WORLD)
    installation.sandbox.faults.on(r"/commits\?.*include=", answer)
    installation.sync()
    assert "commits are requested for each pull request by itself" in "".join(installation.warnings)


@pytest.mark.parametrize("meanwhile", ["rewound", "further", "at the source"])
def test_a_list_made_while_the_target_stood_elsewhere_for_a_moment_is_requested_again(meanwhile, connect):
    installation = connect(replace(WORLD, pull_requests=60))
    installation.sync()
    world = installation.sandbox.world
    repository = next(one for one in world.open_repositories if len(one.pull_requests) > 5)
    pull = world.open_pull_request(repository)
    world.push(pull)
    branches, branch = repository.graph.branches, repository.main_branch
    head = branches[branch]
    moved = {"rewound": head.parents[0], "further": pull.source.parents[0], "at the source": pull.source}

    async def commits_while_it_is_moved(workspace: Workspace) -> None:
        await import_repositories(workspace)
        await import_pull_requests(workspace)
        await import_branches(workspace, Report("commits"))
        branches[branch] = moved[meanwhile]
        await import_commits(workspace)
        branches[branch] = head

    installation.on_workspace(commits_while_it_is_moved)
    assert "bitbucket_pull_commits" in installation.differences()
    installation.sync()
    # Both walks saw the same branch, so the list is not requested once more.
    installation.sync()
    assert path_of(pull) not in installation.lists_asked()
