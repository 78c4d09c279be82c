"""The made-up workspace: what it holds, how it changes, and that its truth is what the API shows."""

from collections import Counter

import httpx
import pytest

from dx_dagster.sandbox import Sandbox, World, WorldConfig, truth
from dx_dagster_tests.sandbox.asking import SMALL, STATES, Json, busiest, moment, under, walk


def test_same_seed_same_workspace_and_the_same_steps_lead_to_the_same_future() -> None:
    first, second, other = World(SMALL), World(SMALL), World(WorldConfig(seed=8, repositories=8, pull_requests=150))
    assert truth(first) == truth(second) != truth(other)
    assert first.step(200) == second.step(200)
    assert truth(first) == truth(second)


def test_the_workspace_holds_the_oddities_that_break_importers() -> None:
    world = World(WorldConfig())
    pulls = list(world.pull_requests)
    assert len(pulls) == 2000
    assert {pull.state for pull in pulls} == {"OPEN", "MERGED", "DECLINED", "SUPERSEDED"}
    assert any(pull.author is None for pull in pulls)
    assert any(pull.author and pull.author.display_name == "Former user" for pull in pulls)
    assert any(pull.author and pull.author.kind == "team" for pull in pulls)
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
    assert {p.state for r in world.repositories for p in r.pipelines} == {"PENDING", "IN_PROGRESS", "COMPLETED"}


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


def test_what_the_api_shows_adds_up_to_the_truth_also_after_a_while(sandbox: Sandbox, client: httpx.Client) -> None:
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
        if client.get(f"{base}/pipelines/").status_code == 200:
            for run in walk(client, f"{base}/pipelines/?pagelen=100"):
                row = runs.pop(run["uuid"])
                assert row["result"] == run["state"].get("result", {}).get("name")
                assert row["commit_sha"] == run["target"]["commit"]["hash"]
        for pull in walk(client, f"{base}/pullrequests?{STATES}&pagelen=50&fields=%2Bvalues.participants"):
            key, at = (repository["uuid"], pull["id"]), f"{base}/pullrequests/{pull['id']}"
            check_pull(by_pull.pop(key), pull, [entry for entry in feed if entry["pull_request"]["id"] == pull["id"]])
            assert expected["comments"][key] == len(walk(client, f"{at}/comments?pagelen=100"))
            assert expected["activities"][key] == len(walk(client, f"{at}/activity?pagelen=50"))
            assert expected["participants"][key] == len(pull["participants"])
            commits = client.get(f"{at}/commits?pagelen=100")
            assert (commits.status_code == 404) is (pull["source"]["repository"] is None)
            assert expected["commits"][key] == len(commits.json().get("values", []))
            seen += 1
    assert seen == len(tables["bitbucket_pulls"])
    assert not by_pull
    assert not runs


def check_pull(row: Json, pull: Json, feed: list[Json]) -> None:
    """A row of the truth against what the API says of it."""
    assert row["state"] == pull["state"]
    assert row["title"] == pull["title"].replace("\0", "")
    assert row["updated_at"] == moment(pull["updated_on"])
    assert row["comment_count"] == pull["comment_count"]
    assert row["user"] == (pull["author"] or {}).get("uuid")
    source = pull["source"]["commit"]
    assert row["source_commit_sha"] is None if source is None else row["source_commit_sha"].startswith(source["hash"])
    closed = [moment(e["update"]["date"]) for e in feed if e.get("update", {}).get("state") == pull["state"] != "OPEN"]
    assert row["closed_at"] == (min(closed) if closed else None)
    assert row["merged_at"] == (row["closed_at"] if pull["state"] == "MERGED" else None)
    author = (pull["author"] or {}).get("uuid")
    reviews = [moment(entry[kind][when]) for entry in feed for kind, when in REVIEWS.items()
               if kind in entry and entry[kind]["user"] and entry[kind]["user"]["uuid"] != author]  # fmt: skip
    first = (min(reviews) - row["created_at"]).total_seconds() if reviews else None
    assert row["open_to_first_review"] == first


REVIEWS = {"comment": "created_on", "approval": "date", "changes_requested": "date"}


def test_what_may_not_be_seen_is_no_part_of_the_truth(sandbox: Sandbox, client: httpx.Client) -> None:
    hidden = next(repository for repository in sandbox.world.repositories if repository.forbidden)
    assert hidden.slug in {repository["slug"] for repository in walk(client, "/repositories/acme")}
    for path in ("", "/pullrequests", "/commits", "/pipelines/", "/pullrequests/activity"):
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
