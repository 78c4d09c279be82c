"""What the real service was seen to say, through the frames.

The recorded files are compared with their own words: each column with the place in the JSON that it must come from,
times and users read by code of the tests. Some values were read off by hand.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import polars as pl

from dx_dagster.frames import activities, comments, commits, pipelines, pulls, repositories
from dx_dagster_tests.payloads.recorded import (
    COMMENT_DELIVERIES,
    DELIVERIES,
    IMPORTED,
    NOT_IMPORTED,
    NOW,
    PAYLOADS,
    REPOSITORY,
    TEST_REPOSITORY,
    WORKSPACE,
    Json,
    assert_columns,
    at,
    bodies,
    moment,
    needs_payloads,
    people,
    person,
    recorded,
    values,
)


@needs_payloads
def test_every_file_is_spoken_for():
    there = {str(path.relative_to(PAYLOADS)) for path in PAYLOADS.rglob("*.json")}
    imported, not_imported = set().union(*IMPORTED.values()), set().union(*NOT_IMPORTED.values())
    assert there - imported - not_imported == set(), "new files: say which frame they go to, or why to none"
    assert (imported | not_imported) - there == set(), "files that are gone"
    assert imported & not_imported == set()


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
    if file in DELIVERIES | COMMENT_DELIVERIES:
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
    return [body["comment"] for body in bodies(file)] if file in COMMENT_DELIVERIES else values(file)


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

    row = pull_row(f"{TEST_REPOSITORY}/pullrequests/1/decline/POST.json")  # closed by somebody, merged by nobody
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
    [one] = values(f"{TEST_REPOSITORY}/pullrequests/1/request-changes/POST.json")
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
