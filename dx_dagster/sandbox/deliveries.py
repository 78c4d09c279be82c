"""Webhook deliveries for the events of a world, in the shapes that Bitbucket sends.

A watcher compares the world with what it last saw. Shapes are those of recorded deliveries; those of
`pullrequest:changes_request_*` and `pullrequest:unapproved` are made by hand after Atlassian's description.
"""

import hashlib
import hmac
import json
import urllib.request
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.error import HTTPError
from uuid import uuid4

from dx_dagster.sandbox import fields, rendering
from dx_dagster.sandbox.pull_requests import Comment, PullRequest
from dx_dagster.sandbox.rendering import Json
from dx_dagster.sandbox.rendering_pulls import PARTS, comment, render
from dx_dagster.sandbox.repositories import HostedRepository
from dx_dagster.sandbox.workspace import MadeUpWorkspace

_CLOSED = {"MERGED": "fulfilled", "DECLINED": "rejected"}
_JUDGED = {"approved": "approved", "changes_requested": "changes_request_created"}
_OPINIONS = frozenset({"approval", "changes_requested"})
# Bitbucket's own pages show a run that waits for its manual step as successful.
_STATUSES = {
    "PENDING": "INPROGRESS",
    "RUNNING": "INPROGRESS",
    "PAUSED": "SUCCESSFUL",
    "HALTED": "SUCCESSFUL",
    "SUCCESSFUL": "SUCCESSFUL",
    "STOPPED": "STOPPED",
}
_TAKEN_BACK = {"approved": "unapproved", "changes_requested": "changes_request_removed"}


@dataclass(frozen=True)
class SandboxDelivery:
    """One delivery; sent again, it keeps its `request_uuid`."""

    event_key: str
    body: bytes = field(repr=False)
    request_uuid: str = field(default_factory=lambda: str(uuid4()))

    def headers(self, secret: str, attempt: int = 1, hook_uuid: str = "{sandbox}") -> dict[str, str]:
        signature = hmac.new(secret.encode(), self.body, hashlib.sha256).hexdigest()
        return {
            "Content-Type": "application/json",
            "User-Agent": "Bitbucket-Webhooks/2.0",
            "X-Event-Key": self.event_key,
            "X-Hook-UUID": hook_uuid,
            "X-Request-UUID": self.request_uuid,
            "X-Attempt-Number": str(attempt),
            "X-Hub-Signature": f"sha256={signature}",
        }

    def send(self, url: str, secret: str, attempt: int = 1, hook_uuid: str = "{sandbox}") -> int:
        """The status of the answer."""
        headers = self.headers(secret, attempt, hook_uuid)
        request = urllib.request.Request(url, self.body, headers, method="POST")  # noqa: S310 - a hook's address
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310
                return int(answer.status)
        except HTTPError as error:
            with error:
                return error.code


@dataclass
class _SeenPull:
    pull_request: PullRequest
    version: int
    state: str
    source: str
    said: tuple[object, ...]
    judged: dict[str, tuple[str, int]]
    comments: dict[int, tuple[str, bool]]


@dataclass
class _SeenRepository:
    repository: HostedRepository
    slug: str
    branches: dict[str, str]
    pulls: dict[int, _SeenPull]
    pipelines: dict[str, int]


class Watcher:
    """Turns the changes of a world since the last call into deliveries."""

    def __init__(self, world: MadeUpWorkspace) -> None:
        self._world = world
        self._seen = self._look()

    def deliveries(self) -> list[SandboxDelivery]:
        """The deliveries since the last call, in order. A change of members is no event."""
        with self._world.lock:
            before, self._seen = self._seen, self._look()
            return [
                SandboxDelivery(key, json.dumps(payload, separators=(",", ":")).encode())
                for key, payload in self._differences(before, self._seen)
            ]

    def _look(self) -> dict[str, _SeenRepository]:
        with self._world.lock:
            return {
                one.uuid: _SeenRepository(
                    one,
                    one.slug,
                    {name: commit.sha for name, commit in one.graph.branches.items()},
                    {number: _look_at(pull) for number, pull in one.pull_requests.items()},
                    {pipeline.uuid: pipeline.version for pipeline in one.pipelines},
                )
                for one in self._world.repositories
                if not one.forbidden
            }

    def _differences(
        self, before: dict[str, _SeenRepository], after: dict[str, _SeenRepository]
    ) -> Iterator[tuple[str, Json]]:
        for uuid, gone in before.items():
            if uuid in self._world.went_to:
                yield "repo:transfer", self._transfer(gone.repository, self._world, self._world.went_to[uuid])
            elif uuid not in after:
                yield "repo:deleted", self._base(gone.repository)
        for uuid, new in after.items():
            old = before.get(uuid)
            if old is None and uuid in self._world.came_from:
                yield "repo:transfer", self._transfer(new.repository, self._world.came_from[uuid], self._world)
                continue
            if old is None:
                yield "repo:created", self._base(new.repository)
            yield from self._repository(old or _SeenRepository(new.repository, new.slug, {}, {}, {}), new)

    def _repository(self, old: _SeenRepository, new: _SeenRepository) -> Iterator[tuple[str, Json]]:
        base = self._base(new.repository)
        if old.slug != new.slug:
            yield "repo:updated", base | {"changes": {"name": {"old": old.slug, "new": new.slug}}}
        if old.branches != new.branches:
            yield "repo:push", base | {"push": {"changes": list(_pushed(old, new))}}
        for number, pull in new.pulls.items():
            before = old.pulls.get(number)
            if before is None or before.version != pull.version:
                payload = base | {"pullrequest": render(pull.pull_request, PARTS, fields.parse(""))}
                for key, more in _happened(before, pull):
                    yield f"pullrequest:{key}", payload | more
        for pipeline, version in new.pipelines.items():
            if old.pipelines.get(pipeline) != version:
                key = "updated" if pipeline in old.pipelines else "created"
                yield f"repo:commit_status_{key}", base | self._status(new.repository, pipeline)

    def _transfer(self, repository: HostedRepository, old: MadeUpWorkspace, new: MadeUpWorkspace) -> Json:
        """A transfer, sent to both workspaces: not established; the names follow Atlassian's description."""
        return self._base(repository, new) | {"previous_workspace": rendering.workspace(old, short=True)}

    def _base(self, repository: HostedRepository, world: MadeUpWorkspace | None = None) -> Json:
        whole = rendering.repository(world or self._world, repository)
        named = ("type", "full_name", "links", "name", "uuid", "owner", "workspace", "is_private", "project", "parent")
        actor = rendering.person(self._world.people.members[0])
        return {"repository": {name: whole[name] for name in named}, "actor": actor}

    def _status(self, repository: HostedRepository, pipeline: str) -> Json:
        run = next(one for one in repository.pipelines if one.uuid == pipeline)
        url = f"{rendering.SITE}/{repository.full_name}/addon/pipelines/home#!/results/{run.build_number}"
        status: dict[str, Any] = {"key": "pipeline", "name": f"Pipeline #{run.build_number}", "url": url}
        status |= {"type": "build", "state": _STATUSES.get(run.result or run.stage or run.state, "FAILED")}
        status |= {"refname": run.ref_name, "commit": rendering.commit_reference(repository.full_name, run.commit.sha)}
        return {"commit_status": status}


def _look_at(pull: PullRequest) -> _SeenPull:
    opinions = Counter(one.user.uuid for one in pull.activity if one.user and one.kind in _OPINIONS)
    judged = {one.user.uuid: (one.state, opinions[one.user.uuid]) for one in pull.participants.values() if one.state}
    comments = {one.number: (one.text, one.deleted) for one in pull.comments}
    said = (pull.title, pull.draft, pull.target_branch, pull.description)
    return _SeenPull(pull, pull.version, pull.state, pull.source.sha, said, judged, comments)


def _happened(old: _SeenPull | None, new: _SeenPull) -> Iterator[tuple[str, Json]]:
    """The events of one pull request, each with the other parts of its payload."""
    if old is None:
        yield "created", {}
        old = _SeenPull(new.pull_request, 0, "OPEN", new.source, new.said, {}, {})
    if old.source != new.source:
        yield "push", {}
    if old.said != new.said:
        yield "updated", {}
    # Somebody may approve once more: the opinion is the same, and there is one more entry of it.
    yield from ((_JUDGED[now[0]], {}) for user, now in new.judged.items() if old.judged.get(user) != now)
    yield from ((_TAKEN_BACK[before[0]], {}) for user, before in old.judged.items() if user not in new.judged)
    for one in new.pull_request.comments:
        if (key := _commented(old.comments.get(one.number), one)) is not None:
            yield f"comment_{key}", {"comment": comment(new.pull_request, one)}
    if old.state != new.state and new.state in _CLOSED:
        yield _CLOSED[new.state], {}


def _commented(before: tuple[str, bool] | None, now: Comment) -> str | None:
    if before is None:
        return "created"
    if now.deleted and not before[1]:
        return "deleted"
    return None if (now.text, now.deleted) == before else "updated"


def _pushed(old: _SeenRepository, new: _SeenRepository) -> Iterator[Json]:
    full_name = new.repository.full_name
    for branch in sorted(old.branches.keys() | new.branches.keys()):
        before, after = old.branches.get(branch), new.branches.get(branch)
        if before == after:
            continue
        ends = {
            end: sha and {"type": "branch", "name": branch, "target": rendering.commit_reference(full_name, sha)}
            for end, sha in (("old", before), ("new", after))
        }
        yield {**ends, "created": before is None, "closed": after is None, "forced": False, "truncated": False}
