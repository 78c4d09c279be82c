"""The payloads that the frames are tested with, and their words read without the code under test.

`own/` holds one small payload for each recorded answer of the real service that is read: the same shape with made-up
values. The recorded ones are no part of this repository; where their folder is present, the tests read both.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from dx_dagster.frames import users
from dx_dagster.frames.building import types

OWN = Path(__file__).parent / "own"
RECORDED = Path(__file__).parents[3] / "shared" / "payloads"
FOLDERS = [OWN, *([RECORDED] if RECORDED.is_dir() else [])]

WORKSPACE = "11111111-1111-4111-8111-111111111111"
REPOSITORY = "22222222-2222-4222-8222-222222222222"
NOW = datetime(2026, 11, 23, tzinfo=UTC)
Json = Mapping[str, Any]
_TIME = re.compile(r"(\d\S{9})T(\S{8})(?:\.(\d+))?(Z|[+-]\d\d:\d\d)")

ATLASSIAN = "atlassian-python-api/TestWorkspace1"
TEST_REPOSITORY = f"{ATLASSIAN}/testrepository1"
DELIVERIES = {
    *(f"atlantis/bitbucket-cloud-pull-event-{event}.json" for event in ("created", "fulfilled", "rejected", "updated")),
    *(f"drone-go-scm/webhooks/pr_{event}.json" for event in ("created", "declined", "fulfilled", "updated")),
    "woodpecker/HookPull.json",
    "woodpecker/HookPullRequestDeclined.json",
    "woodpecker/HookPullRequestMerged.json",
}
COMMENT_DELIVERIES = {
    "atlantis/bitbucket-cloud-comment-event.json",
    "drone-go-scm/webhooks/pr_comment_created.json",
    "drone-go-scm/webhooks/pr_comment_deleted.json",
}
# Event keys of deliveries: their headers are not recorded.
DELIVERED = {
    "drone-go-scm/webhooks/pipeline_hook_created.json": "repo:commit_status_created",
    "drone-go-scm/webhooks/pipeline_hook_update.json": "repo:commit_status_updated",
    "drone-go-scm/webhooks/pr_comment_created.json": "pullrequest:comment_created",
    "drone-go-scm/webhooks/pr_comment_deleted.json": "pullrequest:comment_deleted",
    "drone-go-scm/webhooks/pr_created.json": "pullrequest:created",
    "drone-go-scm/webhooks/pr_updated.json": "pullrequest:updated",
    "drone-go-scm/webhooks/pr_declined.json": "pullrequest:rejected",
    "drone-go-scm/webhooks/pr_fulfilled.json": "pullrequest:fulfilled",
    "drone-go-scm/webhooks/push.json": "repo:push",
    "drone-go-scm/webhooks/push_branch_create.json": "repo:push",
    "drone-go-scm/webhooks/push_branch_delete.json": "repo:push",
    "drone-go-scm/webhooks/push_tag_create.json": "repo:push",
    "drone-go-scm/webhooks/push_tag_delete.json": "repo:push",
    "atlantis/bitbucket-cloud-comment-event.json": "pullrequest:comment_created",
    "atlantis/bitbucket-cloud-pull-event-created.json": "pullrequest:created",
    "atlantis/bitbucket-cloud-pull-event-fulfilled.json": "pullrequest:fulfilled",
    "atlantis/bitbucket-cloud-pull-event-rejected.json": "pullrequest:rejected",
    "atlantis/bitbucket-cloud-pull-event-updated.json": "pullrequest:updated",
    "woodpecker/HookPull.json": "pullrequest:created",
    "woodpecker/HookPullRequestDeclined.json": "pullrequest:rejected",
    "woodpecker/HookPullRequestMerged.json": "pullrequest:fulfilled",
    "woodpecker/HookPush.json": "repo:push",
}
# Which file holds what. A file that is neither here nor in NOT_IMPORTED fails a test.
IMPORTED: dict[str, set[str]] = {
    "workspace": {"drone-go-scm/team.json", "gildas-bitbucket-cli/workspace.json"},
    "repositories": {
        f"{ATLASSIAN}/GET.json",
        f"{ATLASSIAN}/TestRepositoryCreated/POST.json",
        f"{TEST_REPOSITORY}/GET.json",
        *(f"drone-go-scm/{name}.json" for name in ("repo", "repo_as_list", "repos", "repos-2", "repos_filter")),
        "drone-go-scm/repos_empty.json",
        "faros/repositories.json",
        "gildas-bitbucket-cli/repository.json",
    },
    "pulls": {
        *(f"atlantis/pull-{how}.json" for how in ("approved", "approved-by-author", "approved-multiple", "unapproved")),
        *(f"{TEST_REPOSITORY}/pullrequests/{name}.json" for name in ("GET", "POST", "1/GET", "25/GET")),
        *(f"{TEST_REPOSITORY}/pullrequests/1/{end}/POST.json" for end in ("decline", "merge")),
        "drone-go-scm/pr.json",
        "drone-go-scm/prs.json",
        *(f"gildas-bitbucket-cli/pullrequest{end}.json" for end in ("", "s", "-no-dest-repo")),
        *DELIVERIES,
        *COMMENT_DELIVERIES,
    },
    "participants": {
        f"{TEST_REPOSITORY}/pullrequests/1/approve/POST.json",
        f"{TEST_REPOSITORY}/pullrequests/1/request-changes/POST.json",
        "gildas-bitbucket-cli/participant.json",
    },
    "activities": {
        "faros/activities.json",
        *(f"gildas-bitbucket-cli/activity-{kind}.json" for kind in ("approval", "comment", "missing", "update")),
    },
    "comments": {
        "atlantis/comments.json",
        *(f"{TEST_REPOSITORY}/pullrequests/1/comments/{name}.json" for name in ("GET", "POST")),
        *(f"drone-go-scm/{name}.json" for name in ("prcomment", "prcomments", "review")),
        *COMMENT_DELIVERIES,
    },
    "commits": {
        f"{TEST_REPOSITORY}/pullrequests/1/commits/GET.json",
        "drone-go-scm/commit.json",
        "drone-go-scm/commits.json",
        "gildas-bitbucket-cli/commit.json",
        "drone-go-scm/webhooks/push.json",
        "drone-go-scm/webhooks/push_branch_create.json",
        "woodpecker/HookPush.json",
    },
    "diffstats": {"drone-go-scm/diffstat.json", "drone-go-scm/pr_diffstat.json"},
    "pipelines": {
        *(f"{TEST_REPOSITORY}/pipelines/{name}.json" for name in ("GET", "POST", "PipelineUuid/GET")),
        "faros/pipelines.json",
        "gildas-bitbucket-cli/pipeline.json",
        "gildas-bitbucket-cli/pipeline-pullrequest.json",
        *(f"gildas-bitbucket-cli/pipeline-target-{kind}.json" for kind in ("ref", "commit-ref", "pullrequest-ref")),
    },
    "environments": {"faros/environments.json"},
    "deployments": {"faros/deployments.json"},
}
ERRORS = (
    "drone-go-scm/error.json",
    *(f"gildas-bitbucket-cli/error-{why}.json" for why in ("badrequest", "badrequest-nobranch", "noapi", "privileges")),
)
NOT_IMPORTED: dict[str, set[str]] = {
    "an error; the client's tests have these": set(ERRORS),
    "accounts by themselves, and what they may do": {
        "atlantis/user.json",
        "drone-go-scm/user.json",
        "drone-go-scm/userEmail.json",
        "drone-go-scm/user_workspaces.json",
        "drone-go-scm/perms.json",
        *(f"drone-go-scm/workspace_repo_perms{end}.json" for end in ("", "_read", "_write")),
        "gildas-bitbucket-cli/workspace-access.json",
        *(f"{TEST_REPOSITORY}/default-reviewers/{name}.json" for name in ("GET", "DefaultReviewer1Uuid/GET")),
        f"{TEST_REPOSITORY}/default-reviewers/DefaultReviewer1Uuid/DELETE.json",
    },
    "branches, tags and hooks": {
        *(f"drone-go-scm/branch{end}.json" for end in ("", "_create", "es", "es_filter")),
        *(f"drone-go-scm/{name}.json" for name in ("tag", "tags", "hook", "hooks")),
        "gildas-bitbucket-cli/branch.json",
        "gildas-bitbucket-cli/tags.json",
    },
    "statuses, tasks, steps": {
        *(f"drone-go-scm/{name}.json" for name in ("status", "statuses")),
        *(f"drone-go-scm/webhooks/pipeline_hook_{name}.json" for name in ("created", "update")),
        f"{TEST_REPOSITORY}/pullrequests/1/statuses/GET.json",
        *(
            f"{TEST_REPOSITORY}/pullrequests/1/tasks/{name}.json"
            for name in ("GET", "POST", "123456/PUT", "123456/DELETE")
        ),
        *(f"{TEST_REPOSITORY}/pipelines/PipelineUuid/steps/{name}.json" for name in ("GET", "step1/GET", "step2/GET")),
        f"{TEST_REPOSITORY}/pipelines/PipelineUuid/steps/step2/log/GET.json",
        "faros/pipelineSteps.json",
        "gildas-bitbucket-cli/pipeline-step.json",
    },
    "answers without a body": {
        *(f"{TEST_REPOSITORY}/pullrequests/1/{name}/DELETE.json" for name in ("approve", "request-changes")),
        f"{TEST_REPOSITORY}/pipelines/PipelineUuid/stopPipeline/POST.json",
    },
    "pushes that bring no commits": {
        *(f"drone-go-scm/webhooks/push_{what}.json" for what in ("branch_delete", "tag_create", "tag_delete")),
    },
}


@dataclass(frozen=True)
class Payload:
    """One file of a folder. `name` is its path below, the same for the recorded one and ours."""

    folder: Path
    name: str

    def __str__(self) -> str:
        return f"{'own' if self.folder == OWN else 'recorded'}/{self.name}"

    def read(self) -> bytes:
        return (self.folder / self.name).read_bytes()


def each(*names: str) -> pytest.MarkDecorator:
    """A test for each of these files in each folder."""
    payloads = [Payload(folder, name) for folder in FOLDERS for name in sorted(names)]
    return pytest.mark.parametrize("payload", payloads, ids=str)


def each_of(kind: str) -> pytest.MarkDecorator:
    return each(*IMPORTED[kind])


def bodies(payload: Payload) -> list[Any]:
    """The answers in a file. Those of atlassian-python-api are keyed by query or body, and spell out constants."""
    written = payload.read().decode()
    if not payload.name.startswith("atlassian-python-api/"):
        return [json.loads(written)]
    return list(json.loads(re.sub(r'"<<(null|true|false)>>"', r"\1", written)).values())


def values(payload: Payload) -> list[Json]:
    """What the answers list, or the one thing that they are."""
    found: list[Json] = []
    for body in bodies(payload):
        listed = body if isinstance(body, list) else body.get("values", [body] if body else [])
        found += listed
    return found


def shape(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Every path in the JSON with the kind of what stands there; the items of a list share one path."""
    if isinstance(value, dict):
        yield path, "object"
        for name, inner in value.items():
            yield from shape(inner, f"{path}.{name}")
    elif isinstance(value, list):
        yield path, "list"
        for inner in value:
            yield from shape(inner, f"{path}[]")
    elif isinstance(value, str):
        yield path, "time" if _TIME.fullmatch(value) else "text"
    else:
        yield path, {bool: "flag", int: "number", float: "number", type(None): "null"}[type(value)]


def at(value: Any, path: str) -> Any:
    for name in path.split("."):
        value = value.get(name) if isinstance(value, dict) else None
    return value


def moment(written: str | None) -> datetime | None:
    """A time as the documentation spells it, read without the code under test."""
    if written is None:
        return None
    found = _TIME.fullmatch(written)
    assert found, written
    day, clock, fraction, zone = found.groups()
    seconds = datetime.strptime(f"{day} {clock} +0000", "%Y-%m-%d %H:%M:%S %z")
    sign = -1 if zone.startswith("-") else 1
    hours, minutes = (0, 0) if zone == "Z" else (int(zone[1:3]), int(zone[4:]))
    micro = int((fraction or "0").ljust(6, "0")[:6])
    return seconds + timedelta(microseconds=micro) - sign * timedelta(hours=hours, minutes=minutes)


def person(account: Any) -> str | None:
    return (at(account, "uuid") or at(account, "account_id") or None) if account else None


def people(accounts: Sequence[Any]) -> dict[str | None, str]:
    """Uuid by id of the row, from the table of users."""
    frame = users.users(WORKSPACE, accounts, NOW)
    assert frame.schema == pl.Schema(types(users.SCHEMA))
    by_uuid = {person(account): account for account in accounts if person(account)}
    assert set(frame["source_id"]) == by_uuid.keys()
    assert frame.height == len(by_uuid)
    for row in frame.to_dicts():
        account = by_uuid[row["source_id"]]
        assert row["name"] == (account.get("display_name") or account.get("username"))
        assert row["nickname"] == account.get("nickname")
        assert row["account_id"] == (account.get("account_id") or None)
    return {None: "", **dict(zip(frame["id"], frame["source_id"], strict=True))}


def assert_columns(frame: pl.DataFrame, found: Sequence[Json], paths: Mapping[str, str]) -> None:
    """Each column holds what stands at its path; those that end in `_at` or are `created` are times."""
    assert frame.height == len(found)
    for column, path in paths.items():
        told = [at(value, path) for value in found]
        if frame.schema[column] == pl.Datetime("us", "UTC"):
            assert frame[column].to_list() == [moment(one) for one in told], column
        else:
            assert frame[column].to_list() == told, column
    assert frame["synced_at"].to_list() == [NOW] * frame.height
