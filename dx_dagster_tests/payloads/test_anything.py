"""What could come, through the frames: anything null, missing or of another type, anywhere."""

from typing import Any
from uuid import uuid5

from hypothesis import given
from hypothesis import strategies as st

from dx_dagster.frames import (
    activities,
    comments,
    commits,
    deployments,
    identifiers,
    pipelines,
    pulls,
    repositories,
    users,
)
from dx_dagster_tests.payloads.evidence import NOW, REPOSITORY, WORKSPACE
from dx_dagster_tests.payloads.made_up import (
    COMMENT,
    COMMIT,
    DEPLOYMENT,
    ENTRIES,
    ENVIRONMENT,
    PIPELINE,
    PULL,
    fits,
)

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


@given(several(ENVIRONMENT), several(DEPLOYMENT))
def test_any_deployment_fits(environments, found):
    assert fits(deployments.environments(REPOSITORY, environments, NOW), deployments.ENVIRONMENT_SCHEMA)
    frame = deployments.deployments(REPOSITORY, [*found, DEPLOYMENT], NOW)
    assert fits(frame, deployments.SCHEMA)
    whole = frame.row(-1, named=True)
    assert [name for name, value in whole.items() if value is None] == []
    assert whole["created_at"] == whole["started_at"] == whole["completed_at"] == whole["updated_at"]


@given(several({"uuid": "{b}", "full_name": "acme/api", "project": {"key": "A"}, "mainbranch": {"name": "main"}}))
def test_any_repository_fits(found):
    assert fits(repositories.repositories(WORKSPACE, found, NOW), repositories.SCHEMA)


@given(st.uuids(), st.text(st.characters(exclude_categories=["Cs"])), st.integers())
def test_ids_are_those_of_uuid5(parent, name, number):
    assert identifiers.within(str(parent), name, number) == str(uuid5(parent, f"{name}/{number}"))
