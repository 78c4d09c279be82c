"""What the real service was seen to answer, through the frames.

Each payload is compared with its own words: each column with the place in the JSON that it must come from, times and
users read by code of the tests. Some values were read off by hand.
"""

import os
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from dx_dagster.frames import activities, comments, commits, deployments, diffstats, pipelines, pulls, repositories
from dx_dagster.frames.building import types
from dx_dagster_tests.payloads.evidence import (
    COMMENT_DELIVERIES,
    DELIVERED,
    DELIVERIES,
    ERRORS,
    FOLDERS,
    IMPORTED,
    NOT_IMPORTED,
    NOW,
    OWN,
    RECORDED,
    REPOSITORY,
    TEST_REPOSITORY,
    WORKSPACE,
    Json,
    Payload,
    assert_columns,
    at,
    bodies,
    each,
    each_of,
    moment,
    people,
    person,
    shape,
    values,
)


def test_each_recorded_payload_that_is_read_has_one_of_ours():
    imported, not_imported = set().union(*IMPORTED.values()), set().union(*NOT_IMPORTED.values())
    assert imported & not_imported == set()
    assert names(OWN) == imported | DELIVERED.keys() | set(ERRORS)


def test_ci_reads_the_recorded_payloads_too():
    is_beside = "CI" in os.environ and RECORDED.parent.is_dir()
    assert not is_beside or RECORDED.is_dir(), "the folder shared stands beside the repository, without its payloads"


def names(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*.json")}


if RECORDED.is_dir():

    def test_each_recorded_payload_is_spoken_for():
        known = set().union(*IMPORTED.values(), *NOT_IMPORTED.values())
        assert names(RECORDED) - known == set(), "new files: say which frame they go to, or why to none"
        assert known - names(RECORDED) == set(), "files that are gone"

    @pytest.mark.parametrize("name", sorted(names(OWN)))
    def test_our_payload_has_the_shape_of_the_recorded_one(name):
        own, recorded = (
            {one for body in bodies(Payload(folder, name)) for one in shape(body)} for folder in (OWN, RECORDED)
        )
        assert own == recorded


# --- each payload against its own words ---


@each_of("workspace")
def test_workspace(payload):
    [value] = values(payload)
    frame = repositories.workspace(value, NOW)
    assert frame.schema == pl.Schema(types(repositories.WORKSPACE_SCHEMA))
    assert_columns(frame, [value], {"source_id": "uuid", "slug": "slug", "name": "name"})
    assert frame["id"].item() == value["uuid"].strip("{}")


@each_of("repositories")
def test_repositories(payload):
    found = values(payload)
    frame = repositories.repositories(WORKSPACE, found, NOW)
    assert frame.schema == pl.Schema(types(repositories.SCHEMA))
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


def pull_requests(payload: Payload) -> list[Json]:
    if payload.name in DELIVERIES | COMMENT_DELIVERIES:
        return [body["pullrequest"] for body in bodies(payload)]
    return values(payload)


@each_of("pulls")
def test_pull_requests(payload):
    found = pull_requests(payload)
    assert found
    frame = pulls.pulls(WORKSPACE, REPOSITORY, found, NOW)
    assert frame.schema == pl.Schema(types(pulls.SCHEMA))
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


@each_of("pulls")
def test_participants_of_pull_requests(payload):
    found = pull_requests(payload)
    frame = pulls.participants(WORKSPACE, REPOSITORY, found, NOW)
    assert frame.schema == pl.Schema(types(pulls.PARTICIPANT_SCHEMA))
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


@each_of("participants")
def test_participants_by_themselves(payload):
    [one] = values(payload)
    frame = pulls.participants(WORKSPACE, REPOSITORY, [{"id": 1, "participants": [one]}], NOW)
    assert_columns(
        frame,
        [one],
        {"role": "role", "approved": "approved", "state": "state", "participated_on": "participated_on"},
    )
    assert people([one["user"]])[frame["user_id"].item()] == one["user"]["uuid"]


@each_of("activities")
def test_activities(payload):
    told = values(payload)
    entries = list(activities.entries(told))
    frame = activities.activities(WORKSPACE, REPOSITORY, entries, NOW)
    assert frame.schema == pl.Schema(types(activities.SCHEMA))
    if payload.name.endswith("activity-missing.json"):
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


def said(payload: Payload) -> list[Json]:
    return [body["comment"] for body in bodies(payload)] if payload.name in COMMENT_DELIVERIES else values(payload)


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


@each_of("comments")
def test_comments(payload):
    assert_comments(said(payload))


def assert_comments(found: Sequence[Json]) -> None:
    assert found
    pull_id = "33333333-3333-4333-8333-333333333333"
    frame = comments.comments(WORKSPACE, [(pull_id, value) for value in found], NOW)
    assert frame.schema == pl.Schema(types(comments.SCHEMA))
    assert_columns(frame, found, COMMENT_PATHS)
    assert set(frame["pull_id"]) == {pull_id}
    who = people([value["user"] for value in found])
    assert [who[one] for one in frame["user_id"]] == [value["user"]["uuid"] for value in found]


def committed(payload: Payload) -> list[Json]:
    body = bodies(payload)[0]
    return (
        [one for change in body["push"]["changes"] for one in change["commits"]] if "push" in body else values(payload)
    )


@each_of("commits")
def test_commits(payload):
    found = committed(payload)
    assert found
    branch = commits.branch_commits(WORKSPACE, REPOSITORY, found, NOW)
    pull = commits.pull_commits([(REPOSITORY, row) for row in commits.rows(WORKSPACE, found)], NOW)
    assert branch.schema == pl.Schema(types(commits.BRANCH_SCHEMA))
    assert pull.schema == pl.Schema(types(commits.PULL_SCHEMA))
    who = people(list(commits.accounts(found)))
    for frame in (branch, pull):
        paths = {"sha": "hash", "created": "date", "message": "message", "source_url": "links.html.href"}
        assert_columns(frame, found, paths)
        assert [who[one] or None for one in frame["author_id"]] == [person(at(one, "author.user")) for one in found]
    assert branch["parents"].to_list() == [[parent["hash"] for parent in value.get("parents", ())] for value in found]
    assert set(pull["deleted"]) == {False}


def runs(payload: Payload) -> list[Json]:
    if "pipeline-target-" in payload.name:
        return [{"uuid": "{00000000-0000-4000-8000-000000000001}", "target": value} for value in values(payload)]
    return values(payload)


@each_of("diffstats")
def test_diffstats(payload):
    found = values(payload)
    added, removed = (sum(file[f"lines_{which}"] for file in found) for which in ("added", "removed"))
    assert diffstats.totals(found) == (added, removed, len(found))
    assert len(found) == (1 if "pr_" in payload.name else 3)


@each_of("pipelines")
def test_pipelines(payload):
    found = runs(payload)
    frame = pipelines.pipelines(WORKSPACE, REPOSITORY, found, NOW)
    assert frame.schema == pl.Schema(types(pipelines.SCHEMA))
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


@each_of("environments")
def test_environments(payload):
    found = values(payload)
    frame = deployments.environments(REPOSITORY, found, NOW)
    assert frame.schema == pl.Schema(types(deployments.ENVIRONMENT_SCHEMA))
    paths = {"source_id": "uuid", "type": "environment_type.name"}
    assert_columns(frame, found, paths | {name: name for name in ("name", "slug", "rank", "hidden")})


@each_of("deployments")
def test_deployments(payload):
    found = values(payload)
    frame = deployments.deployments(REPOSITORY, found, NOW)
    assert frame.schema == pl.Schema(types(deployments.SCHEMA))
    paths = {
        "source_id": "uuid",
        "release_name": "release.name",
        "commit_sha": "release.commit.hash",
        "state": "state.name",
        "status": "state.status.name",
        "created_at": "deployable.created_on",
        "started_at": "state.started_on",
        "completed_at": "state.completed_on",
        "updated_at": "last_update_time",
    }
    assert_columns(frame, found, paths)
    for row, value in zip(frame.to_dicts(), found, strict=True):
        assert row["environment_id"] == at(value, "environment.uuid").strip("{}")
        assert row["pipeline_id"] == at(value, "release.pipeline.uuid").strip("{}")
        assert row["source_url"] == (at(value, "state.url") or at(value, "release.url"))


# --- some of the values, read off by hand: those of ours and those of the recorded payload ---


def by_hand(own: Any, recorded: Any) -> pytest.MarkDecorator:
    told = [(OWN, own), (RECORDED, recorded)]
    return pytest.mark.parametrize(("folder", "told"), [one for one in told if one[0] in FOLDERS])


def pull_row(folder: Path, name: str) -> dict[str, Any]:
    return pulls.pulls(WORKSPACE, REPOSITORY, pull_requests(Payload(folder, name)), NOW).row(0, named=True)


@by_hand(
    (21, "sage-7", "68a7343a76bb", datetime(2026, 2, 4, 15, 21, 5, 471471, tzinfo=UTC)),
    (2, "dev", "5663ada8560f", datetime(2023, 10, 31, 12, 24, 15, 443103, tzinfo=UTC)),
)
def test_a_merged_pull_request_read_off_by_hand(folder, told):
    row = pull_row(folder, "gildas-bitbucket-cli/pullrequest-no-dest-repo.json")
    assert row["state"] == "MERGED"
    assert (row["source_id"], row["target_branch"], row["merge_commit_sha"], row["updated_at"]) == told


@by_hand((200021, "Made up,", "d2ca91c49e85"), (4982, "IOS date", "31c54529bd80"))
def test_a_pull_request_from_a_fork_read_off_by_hand(folder, told):
    row = pull_row(folder, "drone-go-scm/pr.json")
    assert (row["source_id"], row["title"][:8], row["source_commit_sha"]) == told
    assert (row["draft"], row["merge_commit_sha"]) == (None, None)


@by_hand("fjord-8", "branch2")
def test_a_pull_request_without_dates_read_off_by_hand(folder, told):
    """Its author has neither uuid nor account id."""
    row = pull_row(folder, "woodpecker/HookPull.json")
    assert (row["user_id"], row["created_at"], row["source_branch"]) == (None, None, told)


@each(f"{TEST_REPOSITORY}/pullrequests/1/decline/POST.json")
def test_a_declined_pull_request_is_merged_by_nobody(payload):
    row = pull_row(payload.folder, payload.name)
    assert (row["state"], row["merged_by_user_id"]) == ("DECLINED", None)


@by_hand([False, True], [False, True, True])
def test_opinions_read_off_by_hand(folder, told):
    found = pull_requests(Payload(folder, "atlantis/pull-approved-multiple.json"))
    frame = pulls.participants(WORKSPACE, REPOSITORY, found, NOW)
    # Recorded before participants had a state.
    assert frame.select("role", "approved", "state").rows() == [("PARTICIPANT", one, None) for one in told]
    [one] = values(Payload(folder, f"{TEST_REPOSITORY}/pullrequests/1/request-changes/POST.json"))
    frame = pulls.participants(WORKSPACE, REPOSITORY, [{"id": 1, "participants": [one]}], NOW)
    assert frame.select("role", "approved", "state").row(0) == ("REVIEWER", False, "changes_requested")


@by_hand(
    ("grove-7", 57, "https://bitbucket.org/river/iris-7/pipelines/results/56"),
    ("frontend-develop-non-delete-key", 62, "https://bitbucket.org/myworkspace/my-repo/pipelines/results/42"),
)
def test_a_pipeline_of_a_pull_request_read_off_by_hand(folder, told):
    found = runs(Payload(folder, "gildas-bitbucket-cli/pipeline-pullrequest.json"))
    row = pipelines.pipelines(WORKSPACE, REPOSITORY, found, NOW).row(0, named=True)
    branch, number, url = told
    assert (row["state"], row["result"], row["ref_name"]) == ("COMPLETED", "FAILED", branch)
    assert row["pull_id"] == pulls.pulls(WORKSPACE, REPOSITORY, [{"id": number}], NOW)["id"].item()
    assert row["source_url"] == url


@by_hand(
    datetime(2026, 2, 4, 5, 29, 5, 936936, tzinfo=UTC),
    datetime(2021, 12, 6, 7, 20, 41, 45626, tzinfo=UTC),
)
def test_a_pipeline_that_goes_on_read_off_by_hand(folder, told):
    found = runs(Payload(folder, "faros/pipelines.json"))
    row = pipelines.pipelines(WORKSPACE, REPOSITORY, found, NOW).row(0, named=True)
    assert (row["state"], row["result"], row["completed_at"], row["created_at"]) == ("IN_PROGRESS", None, None, told)


@by_hand(
    (datetime(2026, 2, 4, 7, 57, 5, 147147, tzinfo=UTC), ("basil-5", None, 30)),
    (datetime(2022, 6, 24, 1, 38, 47, 831843, tzinfo=UTC), ("README.md", None, 5)),
)
def test_comments_read_off_by_hand(folder, told):
    [deleted] = said(Payload(folder, "drone-go-scm/webhooks/pr_comment_deleted.json"))
    row = comments.comments(WORKSPACE, [(REPOSITORY, deleted)], NOW).row(0, named=True)
    assert (row["deleted"], row["updated_at"]) == (True, told[0])

    [review] = said(Payload(folder, "drone-go-scm/review.json"))
    row = comments.comments(WORKSPACE, [(REPOSITORY, review)], NOW).row(0, named=True)
    assert (row["inline_path"], row["inline_from"], row["inline_to"]) == told[1]


@by_hand((200034, 55), (118571088, 211))
def test_the_comment_in_an_activity_entry_is_a_whole_one(folder, told):
    [entry] = values(Payload(folder, "gildas-bitbucket-cli/activity-comment.json"))
    assert_comments([entry["comment"]])
    row = comments.comments(WORKSPACE, [(REPOSITORY, entry["comment"])], NOW).row(0, named=True)
    assert (row["source_id"], row["inline_from"]) == told
    assert row["inline_to"] is None
