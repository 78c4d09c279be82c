"""What the real service was seen to say, and what it could say, through the frames.

The recorded files are compared with their own words: each column with the place in the JSON that it must come from,
times and users read by code of this file. The values at the end of this file's first half were read off by hand.
"""

import asyncio
import json
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any
from uuid import uuid5

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dx_dagster.frames import activities, comments, commits, identifiers, pipelines, pulls, repositories, users
from dx_dagster.frames.reading import number, text, time
from dx_dagster.warehouse import merge
from dx_dagster.warehouse.database import Warehouse

PAYLOADS = Path(__file__).parent.parent.parent / "shared" / "payloads"
needs_payloads = pytest.mark.skipif(not PAYLOADS.is_dir(), reason="the recorded payloads are not here")

WORKSPACE = "11111111-1111-4111-8111-111111111111"
REPOSITORY = "22222222-2222-4222-8222-222222222222"
NOW = datetime(2026, 11, 23, tzinfo=UTC)
Json = Mapping[str, Any]

ATLASSIAN = "atlassian-python-api/TestWorkspace1"
_REPOSITORY = f"{ATLASSIAN}/testrepository1"
_DELIVERIES = {
    *(f"atlantis/bitbucket-cloud-pull-event-{event}.json" for event in ("created", "fulfilled", "rejected", "updated")),
    *(f"drone-go-scm/webhooks/pr_{event}.json" for event in ("created", "declined", "fulfilled", "updated")),
    "woodpecker/HookPull.json",
    "woodpecker/HookPullRequestDeclined.json",
    "woodpecker/HookPullRequestMerged.json",
}
_COMMENT_DELIVERIES = {
    "atlantis/bitbucket-cloud-comment-event.json",
    "drone-go-scm/webhooks/pr_comment_created.json",
    "drone-go-scm/webhooks/pr_comment_deleted.json",
}
# Which file holds what. A file that is neither here nor in NOT_IMPORTED fails a test.
IMPORTED: dict[str, set[str]] = {
    "workspace": {"drone-go-scm/team.json", "gildas-bitbucket-cli/workspace.json"},
    "repositories": {
        f"{ATLASSIAN}/GET.json",
        f"{ATLASSIAN}/TestRepositoryCreated/POST.json",
        f"{_REPOSITORY}/GET.json",
        *(f"drone-go-scm/{name}.json" for name in ("repo", "repo_as_list", "repos", "repos-2", "repos_filter")),
        "drone-go-scm/repos_empty.json",
        "faros/repositories.json",
        "gildas-bitbucket-cli/repository.json",
    },
    "pulls": {
        *(f"atlantis/pull-{how}.json" for how in ("approved", "approved-by-author", "approved-multiple", "unapproved")),
        *(f"{_REPOSITORY}/pullrequests/{name}.json" for name in ("GET", "POST", "1/GET", "25/GET")),
        *(f"{_REPOSITORY}/pullrequests/1/{end}/POST.json" for end in ("decline", "merge")),
        "drone-go-scm/pr.json",
        "drone-go-scm/prs.json",
        *(f"gildas-bitbucket-cli/pullrequest{end}.json" for end in ("", "s", "-no-dest-repo")),
        *_DELIVERIES,
        *_COMMENT_DELIVERIES,
    },
    "participants": {
        f"{_REPOSITORY}/pullrequests/1/approve/POST.json",
        f"{_REPOSITORY}/pullrequests/1/request-changes/POST.json",
        "gildas-bitbucket-cli/participant.json",
    },
    "activities": {
        "faros/activities.json",
        *(f"gildas-bitbucket-cli/activity-{kind}.json" for kind in ("approval", "comment", "missing", "update")),
    },
    "comments": {
        "atlantis/comments.json",
        *(f"{_REPOSITORY}/pullrequests/1/comments/{name}.json" for name in ("GET", "POST")),
        *(f"drone-go-scm/{name}.json" for name in ("prcomment", "prcomments", "review")),
        *_COMMENT_DELIVERIES,
    },
    "commits": {
        f"{_REPOSITORY}/pullrequests/1/commits/GET.json",
        "drone-go-scm/commit.json",
        "drone-go-scm/commits.json",
        "gildas-bitbucket-cli/commit.json",
        "drone-go-scm/webhooks/push.json",
        "drone-go-scm/webhooks/push_branch_create.json",
        "woodpecker/HookPush.json",
    },
    "pipelines": {
        *(f"{_REPOSITORY}/pipelines/{name}.json" for name in ("GET", "POST", "PipelineUuid/GET")),
        "faros/pipelines.json",
        "gildas-bitbucket-cli/pipeline.json",
        "gildas-bitbucket-cli/pipeline-pullrequest.json",
        *(f"gildas-bitbucket-cli/pipeline-target-{kind}.json" for kind in ("ref", "commit-ref", "pullrequest-ref")),
    },
}
NOT_IMPORTED: dict[str, set[str]] = {
    "an error; the client's tests have these": {
        "drone-go-scm/error.json",
        *(f"gildas-bitbucket-cli/error-{why}.json" for why in ("badrequest", "badrequest-nobranch", "noapi")),
        "gildas-bitbucket-cli/error-privileges.json",
    },
    "accounts by themselves, and what they may do": {
        "atlantis/user.json",
        "drone-go-scm/user.json",
        "drone-go-scm/userEmail.json",
        "drone-go-scm/user_workspaces.json",
        "drone-go-scm/perms.json",
        *(f"drone-go-scm/workspace_repo_perms{end}.json" for end in ("", "_read", "_write")),
        "gildas-bitbucket-cli/workspace-access.json",
        *(f"{_REPOSITORY}/default-reviewers/{name}.json" for name in ("GET", "DefaultReviewer1Uuid/GET")),
        f"{_REPOSITORY}/default-reviewers/DefaultReviewer1Uuid/DELETE.json",
    },
    "branches, tags, diffstats and hooks": {
        *(f"drone-go-scm/branch{end}.json" for end in ("", "_create", "es", "es_filter")),
        *(f"drone-go-scm/{name}.json" for name in ("tag", "tags", "diffstat", "pr_diffstat", "hook", "hooks")),
        "gildas-bitbucket-cli/branch.json",
        "gildas-bitbucket-cli/tags.json",
    },
    "statuses, tasks, steps, deployments": {
        *(f"drone-go-scm/{name}.json" for name in ("status", "statuses")),
        *(f"drone-go-scm/webhooks/pipeline_hook_{name}.json" for name in ("created", "update")),
        f"{_REPOSITORY}/pullrequests/1/statuses/GET.json",
        *(f"{_REPOSITORY}/pullrequests/1/tasks/{name}.json" for name in ("GET", "POST", "123456/PUT", "123456/DELETE")),
        *(f"{_REPOSITORY}/pipelines/PipelineUuid/steps/{name}.json" for name in ("GET", "step1/GET", "step2/GET")),
        f"{_REPOSITORY}/pipelines/PipelineUuid/steps/step2/log/GET.json",
        *(f"faros/{name}.json" for name in ("deployments", "environments", "pipelineSteps")),
        "gildas-bitbucket-cli/pipeline-step.json",
    },
    "answers without a body": {
        *(f"{_REPOSITORY}/pullrequests/1/{name}/DELETE.json" for name in ("approve", "request-changes")),
        f"{_REPOSITORY}/pipelines/PipelineUuid/stopPipeline/POST.json",
    },
    "pushes that bring no commits": {
        *(f"drone-go-scm/webhooks/push_{what}.json" for what in ("branch_delete", "tag_create", "tag_delete")),
    },
}


def recorded(kind: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("file", sorted(IMPORTED[kind]))


@needs_payloads
def test_every_file_is_spoken_for():
    there = {str(path.relative_to(PAYLOADS)) for path in PAYLOADS.rglob("*.json")}
    imported, not_imported = set().union(*IMPORTED.values()), set().union(*NOT_IMPORTED.values())
    assert there - imported - not_imported == set(), "new files: say which frame they go to, or why to none"
    assert (imported | not_imported) - there == set(), "files that are gone"
    assert imported & not_imported == set()


# --- reading the recorded files ---


def bodies(file: str) -> list[Any]:
    """The answers in a file. Those of atlassian-python-api are keyed by query or body, and spell out constants."""
    written = (PAYLOADS / file).read_text()
    if not file.startswith("atlassian-python-api/"):
        return [json.loads(written)]
    return list(json.loads(re.sub(r'"<<(null|true|false)>>"', r"\1", written)).values())


def values(file: str) -> list[Json]:
    """What the answers list, or the one thing that they are."""
    found: list[Json] = []
    for body in bodies(file):
        listed = body if isinstance(body, list) else body.get("values", [body] if body else [])
        found += listed
    return found


def at(value: Any, path: str) -> Any:
    for name in path.split("."):
        value = value.get(name) if isinstance(value, dict) else None
    return value


def moment(written: str | None) -> datetime | None:
    """A time as the documentation spells it, read without the code under test."""
    if written is None:
        return None
    found = re.fullmatch(r"(\S{10})T(\S{8})(?:\.(\d+))?(Z|[+-]\d\d:\d\d)", written)
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
    assert frame.schema == pl.Schema(users.SCHEMA)
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


# --- the recorded files, each against its own words ---


@needs_payloads
@recorded("workspace")
def test_workspace(file):
    [value] = values(file)
    frame = repositories.workspace(value, NOW)
    assert frame.schema == pl.Schema(repositories.WORKSPACE_SCHEMA)
    assert_columns(frame, [value], {"source_id": "uuid", "slug": "slug", "name": "name"})
    assert frame["id"].item() == value["uuid"].strip("{}")


@needs_payloads
@recorded("repositories")
def test_repositories(file):
    found = values(file)
    frame = repositories.repositories(WORKSPACE, found, NOW)
    assert frame.schema == pl.Schema(repositories.SCHEMA)
    paths = {
        "source_id": "uuid",
        "name": "name",
        "slug": "slug",
        "description": "description",
        "private": "is_private",
        "project_key": "project.key",
        "created_at": "created_on",
        "updated_at": "updated_on",
        "source_url": "links.html.href",
        "default_branch": "mainbranch.name",
    }
    assert_columns(frame, found, paths)
    assert set(frame["workspace_id"]) <= {WORKSPACE}


def pull_requests(file: str) -> list[Json]:
    if file in _DELIVERIES | _COMMENT_DELIVERIES:
        return [body["pullrequest"] for body in bodies(file)]
    return values(file)


@needs_payloads
@recorded("pulls")
def test_pull_requests(file):
    found = pull_requests(file)
    assert found
    frame = pulls.pulls(WORKSPACE, REPOSITORY, found, NOW)
    assert frame.schema == pl.Schema(pulls.SCHEMA)
    paths = {
        "source_id": "id",
        "title": "title",
        "state": "state",
        "draft": "draft",
        "source_branch": "source.branch.name",
        "target_branch": "destination.branch.name",
        "source_commit_sha": "source.commit.hash",
        "merge_commit_sha": "merge_commit.hash",
        "comment_count": "comment_count",
        "task_count": "task_count",
        "created_at": "created_on",
        "updated_at": "updated_on",
        "source_url": "links.html.href",
    }
    assert_columns(frame, found, paths)
    who = people(list(pulls.accounts(found)))
    assert [who[one] or None for one in frame["user_id"]] == [person(value.get("author")) for value in found]
    merged_by = [person(value.get("closed_by")) if value["state"] == "MERGED" else None for value in found]
    assert [who[one] or None for one in frame["merged_by_user_id"]] == merged_by


@needs_payloads
@recorded("pulls")
def test_participants_of_pull_requests(file):
    found = pull_requests(file)
    frame = pulls.participants(WORKSPACE, REPOSITORY, found, NOW)
    assert frame.schema == pl.Schema(pulls.PARTICIPANT_SCHEMA)
    who = people(list(pulls.accounts(found)))
    numbers = dict(pulls.pulls(WORKSPACE, REPOSITORY, found, NOW).select("id", "source_id").iter_rows())
    ours = {(numbers[row["pull_id"]], who[row["user_id"]]): row for row in frame.to_dicts()}
    told: dict[tuple[int, str | None], Json] = {}
    for value in found:
        told |= {(value["id"], person(one["user"])): one for one in value.get("participants") or ()}
        for reviewer in value.get("reviewers") or ():
            told.setdefault((value["id"], person(reviewer)), {"role": "REVIEWER", "approved": False})
    assert ours.keys() == told.keys()
    assert len(ours) == frame.height
    for key, row in ours.items():
        for column in ("role", "approved", "state"):
            assert row[column] == told[key].get(column), (key, column)
        assert row["participated_on"] == moment(told[key].get("participated_on"))
    assert all(pulls.states_participants(value) == ("participants" in value) for value in found)


@needs_payloads
@recorded("participants")
def test_participants_by_themselves(file):
    [one] = values(file)
    frame = pulls.participants(WORKSPACE, REPOSITORY, [{"id": 1, "participants": [one]}], NOW)
    assert_columns(
        frame,
        [one],
        {"role": "role", "approved": "approved", "state": "state", "participated_on": "participated_on"},
    )
    assert people([one["user"]])[frame["user_id"].item()] == one["user"]["uuid"]


@needs_payloads
@recorded("activities")
def test_activities(file):
    told = values(file)
    entries = list(activities.entries(told))
    frame = activities.activities(WORKSPACE, REPOSITORY, entries, NOW)
    assert frame.schema == pl.Schema(activities.SCHEMA)
    if file.endswith("activity-missing.json"):
        assert frame.is_empty()
        return
    who = people([one.actor for one in entries])
    assert frame.height == len(told)
    for row, value, entry in zip(frame.to_dicts(), told, entries, strict=True):
        [kind] = {"comment", "update", "approval"} & value.keys()
        body = value[kind]
        assert (row["kind"], entry.number) == (kind, value["pull_request"]["id"])
        assert row["created_at"] == moment(body.get("date") or body.get("created_on"))
        assert who[row["user_id"]] == (body.get("user") or body["author"])["uuid"]
        assert row["state"] == body.get("state")
        assert row["draft"] == body.get("draft")
        assert row["comment_source_id"] == (body["id"] if kind == "comment" else None)
    number_of = {row["id"]: value["pull_request"]["id"] for row, value in zip(frame.to_dicts(), told, strict=True)}
    pull_ids = pulls.pulls(WORKSPACE, REPOSITORY, [{"id": one} for one in number_of.values()], NOW)["id"]
    assert frame["pull_id"].to_list() == pull_ids.to_list()


def said(file: str) -> list[Json]:
    return [body["comment"] for body in bodies(file)] if file in _COMMENT_DELIVERIES else values(file)


COMMENT_PATHS = {
    "source_id": "id",
    "parent_source_id": "parent.id",
    "content": "content.raw",
    "inline_path": "inline.path",
    "inline_from": "inline.from",
    "inline_to": "inline.to",
    "created_at": "created_on",
    "updated_at": "updated_on",
    "deleted": "deleted",
    "source_url": "links.html.href",
}


@needs_payloads
@recorded("comments")
def test_comments(file):
    assert_comments(said(file))


@needs_payloads
def test_the_comment_in_an_activity_entry_is_a_whole_one():
    [entry] = values("gildas-bitbucket-cli/activity-comment.json")
    assert_comments([entry["comment"]])
    row = comments.comments(WORKSPACE, [(REPOSITORY, entry["comment"])], NOW).row(0, named=True)
    assert (row["source_id"], row["inline_from"], row["inline_to"]) == (118571088, 211, None)


def assert_comments(found: Sequence[Json]) -> None:
    assert found
    pull_id = "33333333-3333-4333-8333-333333333333"
    frame = comments.comments(WORKSPACE, [(pull_id, value) for value in found], NOW)
    assert frame.schema == pl.Schema(comments.SCHEMA)
    assert_columns(frame, found, COMMENT_PATHS)
    assert set(frame["pull_id"]) == {pull_id}
    who = people([value["user"] for value in found])
    assert [who[one] for one in frame["user_id"]] == [value["user"]["uuid"] for value in found]


def committed(file: str) -> list[Json]:
    body = bodies(file)[0]
    return [one for change in body["push"]["changes"] for one in change["commits"]] if "push" in body else values(file)


@needs_payloads
@recorded("commits")
def test_commits(file):
    found = committed(file)
    assert found
    branch = commits.branch_commits(WORKSPACE, REPOSITORY, found, NOW)
    pull = commits.pull_commits([(REPOSITORY, row) for row in commits.rows(WORKSPACE, found)], NOW)
    assert branch.schema == pl.Schema(commits.BRANCH_SCHEMA)
    assert pull.schema == pl.Schema(commits.PULL_SCHEMA)
    who = people(list(commits.accounts(found)))
    for frame in (branch, pull):
        paths = {"sha": "hash", "created": "date", "message": "message", "source_url": "links.html.href"}
        assert_columns(frame, found, paths)
        assert [who[one] or None for one in frame["author_id"]] == [person(at(one, "author.user")) for one in found]
    assert branch["parents"].to_list() == [[parent["hash"] for parent in value.get("parents", ())] for value in found]
    assert set(pull["deleted"]) == {False}


def runs(file: str) -> list[Json]:
    if "pipeline-target-" in file:
        return [{"uuid": "{00000000-0000-4000-8000-000000000001}", "target": value} for value in values(file)]
    return values(file)


@needs_payloads
@recorded("pipelines")
def test_pipelines(file):
    found = runs(file)
    frame = pipelines.pipelines(WORKSPACE, REPOSITORY, found, NOW)
    assert frame.schema == pl.Schema(pipelines.SCHEMA)
    paths = {
        "source_id": "uuid",
        "build_number": "build_number",
        "state": "state.name",
        "result": "state.result.name",
        "trigger": "trigger.name",
        "commit_sha": "target.commit.hash",
        "created_at": "created_on",
        "completed_at": "completed_on",
        "duration": "duration_in_seconds",
    }
    assert_columns(frame, found, paths)
    who = people([value.get("creator") for value in found])
    assert [who[one] or None for one in frame["user_id"]] == [person(value.get("creator")) for value in found]
    branches = [at(value, "target.ref_name") or at(value, "target.source") for value in found]
    assert frame["ref_name"].to_list() == branches
    for row, value in zip(frame.to_dicts(), found, strict=True):
        pull = at(value, "target.pullrequest")
        assert row["pull_id"] == (pulls.pulls(WORKSPACE, REPOSITORY, [pull], NOW)["id"].item() if pull else None)


# --- some of the recorded values, read off by hand ---


@needs_payloads
def test_values_read_off_by_hand():
    row = pull_row("gildas-bitbucket-cli/pullrequest-no-dest-repo.json")
    assert (row["source_id"], row["state"], row["target_branch"]) == (2, "MERGED", "dev")
    assert row["merge_commit_sha"] == "5663ada8560f"
    assert row["updated_at"] == datetime(2023, 10, 31, 12, 24, 15, 443103, tzinfo=UTC)

    row = pull_row("drone-go-scm/pr.json")  # from a fork
    assert (row["source_id"], row["title"][:8], row["draft"]) == (4982, "IOS date", None)
    assert (row["source_commit_sha"], row["merge_commit_sha"]) == ("31c54529bd80", None)

    row = pull_row("woodpecker/HookPull.json")  # an author without uuid and account id, no dates at all
    assert (row["user_id"], row["created_at"], row["source_branch"]) == (None, None, "branch2")

    row = pull_row(f"{_REPOSITORY}/pullrequests/1/decline/POST.json")  # closed by somebody, merged by nobody
    assert (row["state"], row["merged_by_user_id"]) == ("DECLINED", None)


def pull_row(file: str) -> dict[str, Any]:
    return pulls.pulls(WORKSPACE, REPOSITORY, pull_requests(file), NOW).row(0, named=True)


@needs_payloads
def test_opinions_read_off_by_hand():
    found = pull_requests("atlantis/pull-approved-multiple.json")
    frame = pulls.participants(WORKSPACE, REPOSITORY, found, NOW)
    # Recorded before participants had a state.
    assert frame.select("role", "approved", "state").rows() == [
        ("PARTICIPANT", False, None),
        ("PARTICIPANT", True, None),
        ("PARTICIPANT", True, None),
    ]
    [one] = values(f"{_REPOSITORY}/pullrequests/1/request-changes/POST.json")
    frame = pulls.participants(WORKSPACE, REPOSITORY, [{"id": 1, "participants": [one]}], NOW)
    assert frame.select("role", "approved", "state").row(0) == ("REVIEWER", False, "changes_requested")


@needs_payloads
def test_pipelines_read_off_by_hand():
    frame = pipelines.pipelines(WORKSPACE, REPOSITORY, runs("gildas-bitbucket-cli/pipeline-pullrequest.json"), NOW)
    row = frame.row(0, named=True)
    assert (row["state"], row["result"], row["ref_name"]) == ("COMPLETED", "FAILED", "frontend-develop-non-delete-key")
    assert row["pull_id"] == pulls.pulls(WORKSPACE, REPOSITORY, [{"id": 62}], NOW)["id"].item()
    assert row["source_url"] == "https://bitbucket.org/myworkspace/my-repo/pipelines/results/42"

    row = pipelines.pipelines(WORKSPACE, REPOSITORY, runs("faros/pipelines.json"), NOW).row(0, named=True)
    assert (row["state"], row["result"], row["completed_at"]) == ("IN_PROGRESS", None, None)
    assert row["created_at"] == datetime(2021, 12, 6, 7, 20, 41, 45626, tzinfo=UTC)


@needs_payloads
def test_comments_read_off_by_hand():
    [deleted] = said("drone-go-scm/webhooks/pr_comment_deleted.json")
    row = comments.comments(WORKSPACE, [(REPOSITORY, deleted)], NOW).row(0, named=True)
    assert row["deleted"] is True
    assert row["updated_at"] == datetime(2022, 6, 24, 1, 38, 47, 831843, tzinfo=UTC)

    [review] = said("drone-go-scm/review.json")
    row = comments.comments(WORKSPACE, [(REPOSITORY, review)], NOW).row(0, named=True)
    assert (row["inline_path"], row["inline_from"], row["inline_to"]) == ("README.md", None, 5)


# --- what could come: anything null, missing or of another type, anywhere ---

_ACCOUNT = {"uuid": "{aaaaaaaa-aaaa-4aaa-8aaa-aaaaaaaaaaaa}", "account_id": "5:1", "nickname": "ann"}
_HASH = "0123456789ab"
_DATE = "2026-04-07T09:12:30.828883+00:00"
_LINKS = {"html": {"href": "https://bitbucket.org/acme/api"}}
_SIDE = {"branch": {"name": "main"}, "commit": {"hash": _HASH}, "repository": {"uuid": "{b}"}}
PULL: Json = {
    "id": 7,
    "title": "Add a feature",
    "state": "MERGED",
    "draft": False,
    "author": _ACCOUNT,
    "closed_by": _ACCOUNT,
    "source": _SIDE,
    "destination": _SIDE,
    "merge_commit": {"hash": _HASH},
    "comment_count": 1,
    "task_count": 0,
    "created_on": _DATE,
    "updated_on": _DATE,
    "links": _LINKS,
    "reviewers": [_ACCOUNT],
    "participants": [
        {"user": _ACCOUNT, "role": "REVIEWER", "approved": True, "state": "approved", "participated_on": _DATE}
    ],
}
COMMENT: Json = {
    "id": 9,
    "content": {"raw": "good"},
    "user": _ACCOUNT,
    "parent": {"id": 8},
    "inline": {"path": "a.py", "from": None, "to": 5},
    "created_on": _DATE,
    "updated_on": _DATE,
    "deleted": False,
    "pending": False,
    "links": _LINKS,
}
ENTRIES: Sequence[Json] = [
    {"pull_request": {"id": 7}, "comment": COMMENT},
    {"pull_request": {"id": 7}, "update": {"state": "OPEN", "draft": True, "date": _DATE, "author": _ACCOUNT}},
    {"pull_request": {"id": 7}, "approval": {"date": _DATE, "user": _ACCOUNT}},
    {"pull_request": {"id": 7}, "changes_requested": {"date": _DATE, "user": _ACCOUNT}},
]
COMMIT: Json = {
    "hash": _HASH,
    "date": _DATE,
    "message": "More",
    "author": {"raw": "Ann <ann@example.com>", "user": _ACCOUNT},
    "parents": [{"hash": _HASH}],
    "links": _LINKS,
}
PIPELINE: Json = {
    "uuid": "{cccccccc-cccc-4ccc-8ccc-cccccccccccc}",
    "build_number": 3,
    "state": {"name": "COMPLETED", "result": {"name": "FAILED"}},
    "trigger": {"name": "PUSH"},
    "target": {"ref_name": "main", "commit": {"hash": _HASH}, "pullrequest": {"id": 7}, "source": "feature"},
    "creator": _ACCOUNT,
    "created_on": _DATE,
    "completed_on": _DATE,
    "duration_in_seconds": 12,
    "repository": {"links": _LINKS},
}
JUNK = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**31), 2**31 - 1),
    st.floats(),
    st.text(max_size=5),
    st.sampled_from(["", "{}", "2026-13-01", "24:00", "2026-04-07T09:12:30.123456789123Z"]),
    st.just([]),
    st.just({}),
    st.just([None, 1, "x", {}, []]),
    st.just({"uuid": 1, "id": "1", "name": None, "html": []}),
)


@st.composite
def mangled(draw: st.DrawFn, whole: Any) -> Any:
    """The same with parts missing, null or replaced."""
    if isinstance(whole, dict):
        kept = {}
        for name, value in whole.items():
            fate = draw(st.integers(0, 9))
            if fate == 0:
                continue
            kept[name] = None if fate == 1 else draw(JUNK) if fate == 2 else draw(mangled(value))
        return kept
    if isinstance(whole, list):
        return [draw(mangled(one)) for one in whole for _ in range(draw(st.integers(0, 2)))]
    return whole


def several(whole: Any) -> st.SearchStrategy[list[Any]]:
    return st.lists(mangled(whole), max_size=4)


def fits(frame: pl.DataFrame, schema: Any) -> bool:
    """Whether the frame is of its schema; and what will travel to the database is JSON."""
    json.loads(merge.as_json(frame))
    return frame.schema == pl.Schema(schema)


@given(several(PULL))
def test_any_pull_request_fits(found):
    assert fits(pulls.pulls(WORKSPACE, REPOSITORY, found, NOW), pulls.SCHEMA)
    assert fits(pulls.participants(WORKSPACE, REPOSITORY, found, NOW), pulls.PARTICIPANT_SCHEMA)
    assert fits(users.users(WORKSPACE, pulls.accounts(found), NOW), users.SCHEMA)


@given(st.lists(st.one_of([mangled(one) for one in ENTRIES]), max_size=4))
def test_any_activity_fits(found):
    entries = list(activities.entries(found))
    frame = activities.activities(WORKSPACE, REPOSITORY, entries, NOW)
    assert fits(frame, activities.SCHEMA)
    assert frame["created_at"].null_count() == frame["pull_id"].null_count() == 0
    assert fits(users.users(WORKSPACE, [one.actor for one in entries], NOW), users.SCHEMA)
    in_them = [(REPOSITORY, one.body) for one in entries if one.kind == "comment"]
    assert fits(comments.comments(WORKSPACE, in_them, NOW), comments.SCHEMA)


@given(several(COMMENT))
def test_any_comment_fits(found):
    assert fits(comments.comments(WORKSPACE, [(REPOSITORY, one) for one in found], NOW), comments.SCHEMA)


@given(several(COMMIT))
def test_any_commit_fits(found):
    assert fits(
        commits.pull_commits([(REPOSITORY, row) for row in commits.rows(WORKSPACE, found)], NOW), commits.PULL_SCHEMA
    )
    assert fits(commits.branch_commits(WORKSPACE, REPOSITORY, found, NOW), commits.BRANCH_SCHEMA)
    assert fits(users.users(WORKSPACE, commits.accounts(found), NOW), users.SCHEMA)


@given(several(PIPELINE))
def test_any_pipeline_fits(found):
    assert fits(pipelines.pipelines(WORKSPACE, REPOSITORY, found, NOW), pipelines.SCHEMA)


@given(several({"uuid": "{b}", "full_name": "acme/api", "project": {"key": "A"}, "mainbranch": {"name": "main"}}))
def test_any_repository_fits(found):
    assert fits(repositories.repositories(WORKSPACE, found, NOW), repositories.SCHEMA)


# --- texts, numbers and times at their limits ---

# All there is in JSON: halves of surrogate pairs, which no UTF-8 can hold, and NUL, which no PostgreSQL can.
ANYTHING = st.text(st.characters() | st.characters(categories=["Cs"]) | st.just("\x00"), max_size=20)


def storable(written: str) -> str:
    """What must be stored, said another way than the code does: halves of pairs become U+FFFD, pairs one character."""
    paired = re.sub(
        "[\ud800-\udbff][\udc00-\udfff]",
        lambda pair: chr(0x10000 + ((ord(pair[0][0]) - 0xD800) << 10) + ord(pair[0][1]) - 0xDC00),
        written.replace("\x00", ""),
    )
    return re.sub("[\ud800-\udfff]", "\ufffd", paired)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(ANYTHING, min_size=1, max_size=40))
def test_any_text_arrives_in_postgresql(database_url, written):
    told = [{**COMMENT, "id": place, "content": {"raw": one}} for place, one in enumerate(written)]
    assert stored_contents(database_url, told)[: len(written)] == [storable(one) for one in written]


def stored_contents(database_url: str, told: Sequence[Json]) -> list[str]:
    frame = comments.comments(WORKSPACE, [(REPOSITORY, one) for one in told], NOW)

    async def there_and_back() -> list[str]:
        async with Warehouse(database_url) as warehouse:
            async with warehouse.transaction() as transaction:
                await transaction.merge(merge.COMMENTS, frame)
            rows = await warehouse.rows("SELECT content FROM bitbucket_pull_comments ORDER BY source_id")
            return [row.content for row in rows]

    return asyncio.run(there_and_back())


def test_control_characters_and_odd_spaces_are_kept(database_url):
    odd = "".join(map(chr, [*range(1, 0x20), 0x7F, 0x85, 0xA0, 0x200B, 0x2028, 0x202E, 0xFEFF, 0xFFFE, 0xFFFF]))
    assert stored_contents(database_url, [{**COMMENT, "content": {"raw": f"a\x00{odd}\\u0000\\ \"'"}}]) == [
        f"a{odd}\\u0000\\ \"'"
    ]


@given(st.text(max_size=10))
def test_a_text_without_oddities_is_left_alone(written):
    assert text(written) == written.replace("\x00", "")


@pytest.mark.parametrize("digits", range(10))
@pytest.mark.parametrize(
    ("zone", "hour"), [("Z", 10), ("+00:00", 10), ("+02:00", 8), ("-05:30", 15)], ids=["Z", "utc", "east", "west"]
)
def test_times_are_cut_to_microseconds(digits, zone, hour):
    fraction = f".{'987654321'[:digits]}" if digits else ""
    found = time(f"2026-04-07T10:00:59{fraction}{zone}")
    assert found is not None
    assert found.utcoffset() == timedelta()
    assert (found.hour, found.second) == (hour, 59)
    assert found.microsecond == int("987654"[:digits].ljust(6, "0")), "cut, not rounded"


OFFSETS = st.integers(-14 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))


@given(st.datetimes(min_value=datetime(1, 1, 2), max_value=datetime(9999, 12, 30), timezones=OFFSETS))  # noqa: DTZ001
def test_a_time_survives_whatever_its_offset(when):
    found = time(when.isoformat())
    assert found == when
    assert found.tzinfo is UTC


@pytest.mark.parametrize("written", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"])
def test_a_time_that_no_calendar_holds_in_utc_is_none(written):
    assert time(written) is None


@pytest.mark.parametrize("huge", [2**31, 2**63, -(2**63) - 1, 10**30])
def test_a_number_that_no_column_holds_does_not_end_the_import(huge):
    assert fits(pulls.pulls(WORKSPACE, REPOSITORY, [{**PULL, "comment_count": huge}], NOW), pulls.SCHEMA)
    lines = {**COMMENT, "inline": {"path": "a", "from": huge, "to": huge}}
    assert fits(comments.comments(WORKSPACE, [(REPOSITORY, lines)], NOW), comments.SCHEMA)
    if abs(huge) >= 2**63:
        run = {**PIPELINE, "build_number": huge}
        assert fits(pipelines.pipelines(WORKSPACE, REPOSITORY, [run], NOW), pipelines.SCHEMA)


def test_an_account_of_an_odd_type_is_a_person():
    frame = users.users(WORKSPACE, [{**_ACCOUNT, "type": []}], NOW)
    assert frame["type"].to_list() == ["human"]


@pytest.mark.parametrize("odd", [True, 1.0, "1", None, [], {}])
def test_only_integers_are_numbers(odd):
    assert number(odd) is None


# --- the same thing twice ---


def test_a_frame_may_hold_the_same_row_twice(database_url):
    older, newer = "2026-04-07T09:00:00Z", "2026-04-07T09:00:01Z"
    told = [{**COMMENT, "updated_on": when, "content": {"raw": when}} for when in (newer, older, newer, older)]
    assert stored_contents(database_url, told) == [newer]


@given(st.uuids(), st.text(st.characters(exclude_categories=["Cs"])), st.integers())
def test_ids_are_those_of_uuid5(parent, name, number):
    assert identifiers.within(str(parent), name, number) == str(uuid5(parent, f"{name}/{number}"))
