"""The part of a repository that its pull requests refer to: names, settings and commits."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from dx_dagster.sandbox.commits import Commit, GitGraph
from dx_dagster.sandbox.config import WorldConfig
from dx_dagster.sandbox.people import User


@dataclass(slots=True, eq=False)
class Project:
    key: str
    name: str
    uuid: str


@dataclass(slots=True, eq=False)
class Fork:
    """A copy outside the workspace; only pull requests show it."""

    uuid: str
    full_name: str
    name: str


@dataclass(slots=True, eq=False)
class Codebase:
    """`main_branch` is None until the first commit. `names_version` grows with each change of names."""

    config: WorldConfig
    uuid: str
    slug: str
    name: str
    description: str
    is_private: bool
    project: Project
    language: str
    created_on: datetime
    updated_on: datetime
    graph: GitGraph
    next_comment: Callable[[], int]
    main_branch: str | None = None
    parent: "Codebase | None" = None
    forbidden: bool = False
    has_pipelines: bool = True
    last_number: int = 0
    entries: int = 0
    version: int = 0
    names_version: int = 0

    @property
    def full_name(self) -> str:
        return f"{self.config.workspace}/{self.slug}"

    @property
    def head(self) -> Commit:
        """The default branch's newest commit; only for a repository that has one."""
        return self.graph.branches[self.main_branch or ""]

    def next_entry(self) -> int:
        self.entries += 1
        return self.entries

    def touch(self, at: datetime) -> None:
        """Commit activity, the only thing that moves a repository's `updated_on`."""
        self.updated_on = max(self.updated_on, at)
        self.version += 1

    def commit_to(self, branch: str, author: User | str, message: str, at: datetime) -> Commit:
        """A commit on top of a branch, made and pushed at once; it may be the branch's first."""
        head = self.graph.branches.get(branch)
        commit = self.graph.add((head,) if head else (), author, message, at)
        self.graph.branches[branch] = commit
        self.touch(at)
        return commit
