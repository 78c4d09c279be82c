"""The made-up workspace: its content, its events, and its truth compared with its API."""

import json
from collections import Counter
from datetime import datetime, timedelta
from urllib.parse import quote

import httpx
import pytest

from dx_dagster.sandbox import Sandbox, World, WorldConfig, truth
from dx_dagster.sandbox.deliveries import Watcher
from dx_dagster.sandbox.pull_requests import PullRequest
from dx_dagster_tests.sandbox.asking import SMALL, STATES, Json, busiest, moment, under, walk


def test_same_seed_same_workspace_and_the_same_steps_lead_to_the_same_future() -> None:
    first, second, other = World(SMALL), World(SMALL), World(WorldConfig(seed=8, repositories=8, pull_requests=150))
    assert truth(first) == truth(second) != truth(other)
    assert first.step(200) == second.step(200)
    assert truth(first) == truth(second)


def test_the_workspace_holds_the_oddities_that_break_importers() -> None:
    world = World(WorldConfig(merges_by_push=0.03))
    pulls = list(world.pull_requests)
    assert len(pulls) == 2000
    assert {pull.state for pull in pulls} == {"OPEN", "MERGED", "DECLINED", "SUPERSEDED"}
    assert any(pull.author is None for pull in pulls)
    assert any(pull.author and pull.author.display_name == "Former user" for pull in pulls)
    assert any(pull.author and pull.author.kind == "team" for pull in pulls)
    bots = {comment.user.kind for pull in pulls for comment in pull.comments if comment.user}
    assert bots == {"user", "app_user", "AppUser", "team"}
    pushed = [
        pull
        for pull in pulls
        if pull.state == "MERGED" and all(e.update is None or e.update.state == "OPEN" for e in pull.activity)
    ]
    assert 10 < len(pushed) < 100
    assert any(pull.merge_commit and pull.merge_commit.date < pull.created_on for pull in pushed)
    assert any(pull.author and pull.author.kind == "user" and pull.author not in world.people.members for pull in pulls)
    assert any(pull.fork_gone for pull in pulls)
    assert any(pull.fork and not pull.fork_gone for pull in pulls)
    assert any(pull.target_gone for pull in pulls)
    assert any("\0" in pull.title for pull in pulls)
    assert any(comment.deleted for pull in pulls for comment in pull.comments)
    assert any(comment.user is None for pull in pulls for comment in pull.comments)
    assert any(pull.target_branch == "release/1.x" and pull.merge_commit for pull in pulls)
    assert any(
        set(repository.pull_requests) != set(range(1, repository.last_number + 1)) for repository in world.repositories
    )
    assert Counter(repository.main_branch is None for repository in world.repositories)[True] == 1
    assert any(repository.parent for repository in world.repositories)
    runs = [run for repository in world.repositories for run in repository.pipelines]
    assert {run.state for run in runs} == {"PENDING", "IN_PROGRESS", "COMPLETED"}
    assert {"RUNNING", "PAUSED"} <= {run.stage for run in runs}


def test_time_never_runs_backwards() -> None:
    world = World(SMALL)
    before = world.now
    for _ in range(300):
        world.step()
        assert world.now >= before
        before = world.now
    for pull in world.pull_requests:
        times = [entry.at for entry in pull.activity]
        assert times == sorted(times)
        assert pull.created_on <= pull.updated_on <= world.now


def test_a_merge_by_push_leaves_no_update_in_the_activity(sandbox: Sandbox, client: httpx.Client) -> None:
    world, repository = sandbox.world, busiest(sandbox)
    pull = world.open_pull_request(repository)
    world.commit_to_default_branch(repository)
    pusher, watcher, before = world.people.members[-1], Watcher(world), repository.head
    pushed, at = world.merge_by_push(pull, user=pusher), f"{under(repository)}/pullrequests/{pull.number}"
    shown = client.get(at, params={"fields": "+merge_commit.date"}).json()
    assert (shown["state"], shown["closed_by"]["uuid"]) == ("MERGED", pusher.uuid)
    assert moment(shown["updated_on"]) == world.now > moment(shown["merge_commit"]["date"])
    assert {entry["update"]["state"] for entry in walk(client, f"{at}/activity") if "update" in entry} == {"OPEN"}
    assert repository.head is pushed
    assert pushed.parents == (before, pull.source)
    assert pushed.sha.startswith(shown["merge_commit"]["hash"])
    assert [delivery.event_key for delivery in watcher.deliveries()] == ["repo:push", "pullrequest:fulfilled"]


def test_a_fast_forward_by_hand_has_a_merge_commit_older_than_the_pull_request() -> None:
    world = World(SMALL)
    pull = world.open_pull_request(world.open_repositories[0])
    pull.source = pull.repository.graph.add((pull.repository.head,), "Ann <ann@example.com>", "Old", pull.created_on)
    pushed = world.merge_by_push(pull)
    assert pushed is pull.source
    assert pushed.date <= pull.created_on


@pytest.mark.parametrize("strategy", ["merge_commit", "squash", "fast_forward"])
def test_each_merge_strategy_leaves_its_own_shape_in_the_graph(
    sandbox: Sandbox, client: httpx.Client, strategy: str
) -> None:
    repository = busiest(sandbox)
    pull = sandbox.world.open_pull_request(repository)
    sandbox.world.commit_to_default_branch(repository)
    head_before = repository.head
    sandbox.world.merge(pull, strategy)
    shown = client.get(f"{under(repository)}/pullrequests/{pull.number}").json()
    merge = client.get(f"{under(repository)}/commit/{shown['merge_commit']['hash']}").json()
    assert merge["hash"] == repository.head.sha
    parents = [parent["hash"] for parent in merge["parents"]]
    brought = [commit["hash"] for commit in walk(client, f"{under(repository)}/pullrequests/{pull.number}/commits")]
    on_main = {commit["hash"] for commit in walk(client, f"{under(repository)}/commits/{repository.main_branch}")}
    assert brought[0].startswith(shown["source"]["commit"]["hash"])
    if strategy == "merge_commit":
        assert parents == [head_before.sha, brought[0]]
    elif strategy == "squash":
        assert parents == [head_before.sha]
        assert not on_main & set(brought)
    else:
        assert merge["hash"] == brought[0]
    assert (strategy == "squash") is not (set(brought) <= on_main)


def test_comments_move_updated_on_and_approvals_do_not() -> None:
    for moves in (False, True):
        world = World(WorldConfig(repositories=3, pull_requests=5, approvals_move_updated_on=moves))
        pull = world.open_pull_request(world.open_repositories[0])
        who = world.approve(pull)
        world.unapprove(pull, who)
        assert (pull.updated_on > pull.created_on) is moves
        comment = world.comment(pull)
        world.delete_comment(pull, comment)
        assert pull.updated_on == world.now


def test_a_run_pauses_and_its_failed_steps_run_again_under_the_same_number(
    sandbox: Sandbox, client: httpx.Client
) -> None:
    world, repository = sandbox.world, busiest(sandbox)
    watcher, run = Watcher(world), world.add_pipeline(repository)
    at = f"{under(repository)}/pipelines/{quote(run.uuid)}"

    def shown() -> Json:
        return dict(client.get(at).json())

    born = shown()
    assert (born["state"]["name"], born["run_number"]) == ("PENDING", 1)
    world.pause_pipeline(run)
    assert shown()["state"] | {"type": ""} == {
        "type": "",
        "name": "IN_PROGRESS",
        "stage": {"type": "pipeline_state_in_progress_paused", "name": "PAUSED"},
    }
    world.finish_pipeline(run, "FAILED")
    watcher.deliveries()
    world.rerun_failed_steps(run)
    running = shown()
    assert (running["state"]["stage"]["name"], running["run_number"]) == ("RUNNING", 2)
    assert "completed_on" not in running
    world.finish_pipeline(run, "FAILED")
    world.rerun_failed_steps(run, "SUCCESSFUL")
    ended = shown()
    assert (ended["state"]["result"]["name"], ended["run_number"]) == ("SUCCESSFUL", 3)
    same = ("uuid", "build_number", "created_on")
    assert [ended[name] for name in same] == [born[name] for name in same]
    (delivery,) = watcher.deliveries()
    assert delivery.event_key == "repo:commit_status_updated"
    assert json.loads(delivery.body)["commit_status"]["url"].endswith(f"/results/{run.build_number}")
    with pytest.raises(ValueError, match="no step of it has failed"):
        world.rerun_failed_steps(run)


def test_two_thousand_paused_runs_are_listed(sandbox: Sandbox, client: httpx.Client) -> None:
    world, repository = sandbox.world, busiest(sandbox)
    runs = [world.add_pipeline(repository) for _ in range(2000)]
    for run in runs:
        world.pause_pipeline(run)
    paused = client.get(f"{under(repository)}/pipelines?status=PAUSED&pagelen=1").json()
    assert paused["size"] == 2000 + sum(run.stage == "PAUSED" for run in repository.pipelines[:-2000])


def test_the_answers_of_the_api_add_up_to_the_truth_after_many_events(sandbox: Sandbox, client: httpx.Client) -> None:
    sandbox.world.step(400)
    tables: dict[str, list[Json]] = truth(sandbox.world)
    by_pull = {(row["repository"], row["source_id"]): row for row in tables["bitbucket_pulls"]}
    kinds = ("activities", "comments", "commits", "participants")
    expected = {k: Counter((r["repository"], r["pull"]) for r in tables[f"bitbucket_pull_{k}"]) for k in kinds}
    main = Counter(row["repository"] for row in tables["bitbucket_repository_default_branch_commits"])
    runs = {row["source_id"]: row for row in tables["bitbucket_pipelines"]}
    seen = 0
    for repository in walk(client, "/repositories/acme?pagelen=100"):
        base = f"/repositories/acme/{repository['slug']}"
        if client.get(base).status_code == 403:
            continue
        feed = walk(client, f"{base}/pullrequests/activity?pagelen=50")
        if repository["mainbranch"]:
            assert main[repository["uuid"]] == len(
                walk(client, f"{base}/commits/{repository['mainbranch']['name']}?pagelen=100")
            )
        if client.get(f"{base}/pipelines").status_code == 200:
            for run in walk(client, f"{base}/pipelines?pagelen=100"):
                row = runs.pop(run["uuid"])
                assert row["result"] == run["state"].get("result", {}).get("name")
                assert row["stage"] == run["state"].get("stage", {}).get("name")
                assert row["run_number"] == run["run_number"]
                assert row["commit_sha"] == run["target"]["commit"]["hash"]
        for pull in walk(client, f"{base}/pullrequests?{STATES}&pagelen=50&fields={MORE}"):
            key, at = (repository["uuid"], pull["id"]), f"{base}/pullrequests/{pull['id']}"
            comments = walk(client, f"{at}/comments?pagelen=100")
            mine = [entry for entry in feed if entry["pull_request"]["id"] == pull["id"]]
            check_pull(by_pull.pop(key), pull, mine, comments)
            assert expected["comments"][key] == len(comments)
            assert expected["activities"][key] == len(walk(client, f"{at}/activity?pagelen=50"))
            assert expected["participants"][key] == len(pull["participants"])
            gone = client.get(f"{at}/commits?pagelen=1").status_code == 404
            assert gone is (pull["source"]["repository"] is None)
            assert expected["commits"][key] == (0 if gone else len(walk(client, f"{at}/commits?pagelen=100")))
            seen += 1
    assert seen == len(tables["bitbucket_pulls"])
    assert not by_pull
    assert not runs


def check_pull(row: Json, pull: Json, feed: list[Json], comments: list[Json]) -> None:
    """Compares a row of the truth with the answers about it."""
    assert row["state"] == pull["state"]
    assert row["title"] == pull["title"].replace("\0", "")
    assert row["updated_at"] == moment(pull["updated_on"])
    assert row["comment_count"] == pull["comment_count"]
    author = (pull["author"] or {}).get("uuid")
    assert row["user"] == author
    source = pull["source"]["commit"]
    assert row["source_commit_sha"] is None if source is None else row["source_commit_sha"].startswith(source["hash"])
    assert row["closed_at"] == end_of(pull, feed, comments)
    assert row["merged_at"] == (row["closed_at"] if pull["state"] == "MERGED" else None)
    for column, kinds, people in (
        ("open_to_first_review", tuple(REVIEWS), True),
        ("open_to_first_approval", ("approval",), True),
        ("open_to_first_bot_review", tuple(REVIEWS), False),
    ):
        events = [(entry[kind]["user"], moment(entry[kind][REVIEWS[kind]]))
                  for entry in feed for kind in kinds if kind in entry and entry[kind]["user"]]  # fmt: skip
        times = [at for user, at in events if user["uuid"] != author and (user["type"] == "user") is people
                 and (row["closed_at"] is None or at <= row["closed_at"])]  # fmt: skip
        assert row[column] == ((min(times) - row["created_at"]).total_seconds() if times else None)


REVIEWS = {"comment": "created_on", "approval": "date", "changes_requested": "date"}
MORE = "%2Bvalues.participants,%2Bvalues.merge_commit.date"


def end_of(pull: Json, feed: list[Json], comments: list[Json]) -> datetime | None:
    """`merged_at` and `closed_at` by their rule, from the API's answers."""
    if pull["state"] == "OPEN":
        return None
    updated, opened = moment(pull["updated_on"]), moment(pull["created_on"])
    closing = [entry for entry in feed if entry.get("update", {}).get("state") == pull["state"]]
    if closing:
        return min(moment(entry["update"]["date"]) for entry in closing)
    dates = [
        entry[kind]["date"] for entry in feed for kind in ("update", "approval", "changes_requested") if kind in entry
    ]
    dates += [comment[when] for comment in comments for when in ("created_on", "updated_on")]
    if all(abs((moment(date) - updated).total_seconds()) > 5 for date in dates):
        return updated
    merged = moment(pull["merge_commit"]["date"]) if pull["merge_commit"] else opened
    return merged if pull["state"] == "MERGED" and merged >= opened else None


def test_an_end_that_no_update_tells_is_read_off_the_last_change_or_the_merge_commit() -> None:
    world = World(SMALL)
    repository = world.open_repositories[0]

    def merged(pull: PullRequest) -> datetime | None:
        rows = truth(world)["bitbucket_pulls"]
        (row,) = [one for one in rows if (one["repository"], one["source_id"]) == (repository.uuid, pull.number)]
        assert row["closed_at"] == row["merged_at"]
        at = row["merged_at"]
        assert at is None or isinstance(at, datetime)
        return at

    behind = world.open_pull_request(repository)
    ahead = world.open_pull_request(repository)
    world.commit_to_default_branch(repository)
    for pull in (behind, ahead):
        world.now += timedelta(minutes=2)
        ahead.source = repository.graph.add((repository.head,), "Ann <ann@example.com>", "Old", ahead.created_on)
        world.merge_by_push(pull)
        assert merged(pull) == world.now == pull.updated_on
        world.comment(pull)
    assert behind.merge_commit
    assert merged(behind) == behind.merge_commit.date
    assert merged(ahead) is None
    usual = world.open_pull_request(repository)
    world.merge(usual)
    at = world.now
    world.comment(usual)
    assert merged(usual) == at


def test_the_truth_within_a_bound_is_a_part_of_the_whole(sandbox: Sandbox) -> None:
    world = sandbox.world
    whole: dict[str, list[Json]] = truth(world)
    dates = sorted(pull.updated_on for pull in world.pull_requests)
    for since in (dates[0], dates[len(dates) // 2], dates[-1], world.now + timedelta(days=1)):
        bound: dict[str, list[Json]] = truth(world, since)
        inside = {
            (row["repository"], row["source_id"])
            for row in whole["bitbucket_pulls"]
            if row["state"] == "OPEN" or row["updated_at"] >= since
        }
        keyed = {(row["repository"], row["source_id"]): row for row in whole["bitbucket_pulls"]}
        assert bound["bitbucket_pulls"] == [row for key, row in keyed.items() if key in inside]
        for part in ("participants", "activities", "comments", "commits"):
            rows = whole[f"bitbucket_pull_{part}"]
            kept = [row for row in rows if (row["repository"], row["pull"]) in inside]
            assert bound[f"bitbucket_pull_{part}"] == kept
        for table, when in (("repository_default_branch_commits", "created"), ("pipelines", "created_at")):
            rows = whole[f"bitbucket_{table}"]
            found = bound[f"bitbucket_{table}"]
            assert [row["source_url"] for row in found] == [row["source_url"] for row in rows if row[when] >= since]
        pulls = {(row["repository"], row["pull"]) for row in bound["bitbucket_pipelines"] if row["pull"]}
        assert pulls <= inside
        for table in ("workspaces", "repositories"):
            assert bound[f"bitbucket_{table}"] == whole[f"bitbucket_{table}"]
        known = {row["source_id"] for row in bound["bitbucket_users"]}
        assert {user.uuid for user in world.people.members} <= known
        assert known <= {row["source_id"] for row in whole["bitbucket_users"]}
        named = {
            row[who]
            for rows in bound.values()
            for row in rows
            for who in ("user", "author", "merged_by_user")
            if row.get(who)
        }
        assert named <= known


def test_forbidden_repositories_are_no_part_of_the_truth(sandbox: Sandbox, client: httpx.Client) -> None:
    hidden = next(repository for repository in sandbox.world.repositories if repository.forbidden)
    assert hidden.slug in {repository["slug"] for repository in walk(client, "/repositories/acme")}
    for path in ("", "/pullrequests", "/commits", "/pipelines", "/pullrequests/activity"):
        assert client.get(under(hidden) + path).status_code == 403
    rows = {
        name: [row for row in rows if row.get("repository") == hidden.uuid]
        for name, rows in truth(sandbox.world).items()
    }
    assert not any(rows.values())


def test_deleted_comments_stay_listed_and_are_not_counted(sandbox: Sandbox, client: httpx.Client) -> None:
    pull = sandbox.world.open_pull_request(busiest(sandbox))
    kept, deleted = sandbox.world.comment(pull), sandbox.world.comment(pull)
    sandbox.world.delete_comment(pull, deleted)
    at = f"{under(pull.repository)}/pullrequests/{pull.number}"
    listed = {comment["id"]: comment for comment in walk(client, f"{at}/comments")}
    assert listed[deleted.number]["deleted"]
    assert listed[deleted.number]["content"]["raw"] == ""
    assert not listed[kept.number]["deleted"]
    assert client.get(at).json()["comment_count"] == 1
    assert sum("comment" in entry for entry in walk(client, f"{at}/activity")) == 2
