"""The sandbox keeps Bitbucket's promises, and breaks them where Bitbucket does."""

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from dx_dagster.sandbox import Faults, Limits, Sandbox, Token, World, WorldConfig, truth
from dx_dagster.sandbox.repositories import Repository

Json = dict[str, Any]

SMALL = WorldConfig(repositories=8, pull_requests=150, members=8)
STATES = "state=OPEN&state=MERGED&state=DECLINED&state=SUPERSEDED"


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(SMALL) as running:
        yield running


@pytest.fixture
def client(sandbox: Sandbox) -> Iterator[httpx.Client]:
    with connect(sandbox.url, sandbox.token.secret) as opened:
        yield opened


def connect(url: str, secret: str) -> httpx.Client:
    return httpx.Client(base_url=url, headers={"Authorization": f"Bearer {secret}"}, timeout=10)


def walk(client: httpx.Client, path: str) -> list[Json]:
    """Every row of a list, following `next`."""
    rows: list[Json] = []
    url = str(client.base_url).rstrip("/") + path
    while url:
        answer = client.get(url)
        assert answer.status_code == 200, answer.text
        page = answer.json()
        rows += page["values"]
        url = page.get("next")
    return rows


def busiest(sandbox: Sandbox) -> Repository:
    return max(sandbox.world.open_repositories, key=lambda repository: len(repository.pull_requests))


def under(repository: Repository) -> str:
    return f"/repositories/acme/{repository.slug}"


def moment(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)


# -- the world ---------------------------------------------------------------------------------------------------------


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


# -- lists -------------------------------------------------------------------------------------------------------------


def test_pages_are_limited_to_50_for_pull_requests_and_activity_and_to_100_elsewhere(
    sandbox: Sandbox, client: httpx.Client
) -> None:
    base = under(busiest(sandbox))
    limits = {"/pullrequests": 50, "/pullrequests/activity": 50, "/pullrequests/1/activity": 50}
    limits |= {"/pullrequests/1/comments": 100, "/pullrequests/1/commits": 100, "/commits": 100, "/pipelines/": 100}
    for path, most in limits.items():
        assert client.get(f"{base}{path}?pagelen={most}").status_code == 200
        refused = client.get(f"{base}{path}?pagelen={most + 1}")
        assert (refused.status_code, refused.json()["error"]["message"]) == (400, "Invalid pagelen")
    assert len(client.get(f"{base}/commits").json()["values"]) == 10


def test_only_open_pull_requests_are_listed_unless_asked_otherwise(sandbox: Sandbox, client: httpx.Client) -> None:
    repository = busiest(sandbox)
    sandbox.world.open_pull_request(repository)
    base = f"{under(repository)}/pullrequests"
    assert {pull["state"] for pull in walk(client, base)} == {"OPEN"}
    assert len(walk(client, f"{base}?{STATES}&pagelen=50")) == len(repository.pull_requests)
    query = quote('state = "MERGED" OR state IN ("DECLINED", "SUPERSEDED")')
    closed = walk(client, f"{base}?q={query}&pagelen=50")
    assert {pull["state"] for pull in closed} <= {"MERGED", "DECLINED", "SUPERSEDED"}
    assert len(closed) == len(repository.pull_requests) - len(walk(client, base))


def test_a_list_by_page_number_loses_rows_when_it_changes_in_between_and_a_keyset_does_not(
    sandbox: Sandbox, client: httpx.Client
) -> None:
    repository = busiest(sandbox)
    base = f"{under(repository)}/pullrequests?{STATES}&pagelen=20"
    wanted = set(repository.pull_requests)
    by_page = client.get(f"{base}&sort=-updated_on").json()
    keyset = client.get(f"{base}&sort=id").json()["values"]
    oldest = min(repository.pull_requests.values(), key=lambda pull: pull.updated_on)
    sandbox.world.delete_pull_request(repository.pull_requests[by_page["values"][0]["id"]])
    sandbox.world.comment(oldest)
    sandbox.world.delete_pull_request(repository.pull_requests[by_page["values"][1]["id"]])
    rest = walk(client, by_page["next"].removeprefix(sandbox.url))
    assert wanted - {pull["id"] for pull in [*by_page["values"], *rest]}
    while more := client.get(f"{base}&sort=id&q=id%3E{keyset[-1]['id']}").json()["values"]:
        keyset += more
    assert {pull["id"] for pull in keyset} >= set(repository.pull_requests)


def test_the_activity_cursor_stands_still_while_entries_arrive(sandbox: Sandbox, client: httpx.Client) -> None:
    repository = busiest(sandbox)
    base = f"{under(repository)}/pullrequests/activity?pagelen=50"
    before = walk(client, base)
    first = client.get(base).json()
    assert set(first) == {"values", "pagelen", "next"}
    pull = sandbox.world.open_pull_request(repository)
    for _ in range(7):
        sandbox.world.comment(pull)
    rest = walk(client, first["next"].removeprefix(sandbox.url))
    assert first["values"] + rest == before


def test_cursors_of_commits_are_opaque_and_page_numbers_are_refused(sandbox: Sandbox, client: httpx.Client) -> None:
    repository = busiest(sandbox)
    for path in ("/pullrequests/1/commits", "/commits"):
        refused = client.get(f"{under(repository)}{path}?page=1")
        assert (refused.status_code, refused.json()["error"]["message"]) == (400, "Invalid page")
    first = client.get(f"{under(repository)}/commits/{repository.main_branch}").json()
    sandbox.world.commit_to_default_branch(repository)
    rest = walk(client, first["next"].removeprefix(sandbox.url))
    hashes = [commit["hash"] for commit in first["values"] + rest]
    assert (
        len(hashes)
        == len(set(hashes))
        == len(walk(client, f"{under(repository)}/commits/{repository.main_branch}")) - 1
    )


def test_include_and_exclude_walk_the_graph_by_get_and_by_post(sandbox: Sandbox, client: httpx.Client) -> None:
    repository = busiest(sandbox)
    old = repository.head.short
    new = sandbox.world.commit_to_default_branch(repository)
    base = f"{under(repository)}/commits"
    assert [c["hash"] for c in walk(client, f"{base}/{repository.main_branch}?exclude={old}")] == [new.sha]
    posted = client.post(base, data={"include": [new.sha, "release/1.x"], "exclude": [old, "release/1.x"]}).json()
    assert [c["hash"] for c in posted["values"]] == [new.sha]
    missing = client.post(base, data={"include": ["0" * 40]})
    assert (missing.status_code, missing.json()["error"]["data"]) == (404, {"shas": ["0" * 40]})
    assert client.get(f"{base}/release/1.x").status_code == 200


def test_next_of_pipelines_loses_the_sort(sandbox: Sandbox, client: httpx.Client) -> None:
    repository = busiest(sandbox)
    newest = client.get(f"{under(repository)}/pipelines/?sort=-created_on&pagelen=3&fields=%2Bvalues.x").json()
    assert newest["values"][0]["build_number"] == len(repository.pipelines)
    assert newest["next"].endswith("/pipelines/?pagelen=3&page=2")
    assert [run["build_number"] for run in client.get(newest["next"]).json()["values"]] == [4, 5, 6]


def test_participants_come_on_request_and_an_include_list_without_next_ends_the_paging(
    sandbox: Sandbox, client: httpx.Client
) -> None:
    base = f"{under(busiest(sandbox))}/pullrequests"
    plain = client.get(f"{base}?{STATES}").json()["values"][0]
    assert not {"participants", "reviewers", "rendered"} & set(plain)
    wide = client.get(f"{base}?{STATES}&fields=%2Bvalues.participants,%2Bvalues.reviewers,-values.links").json()
    assert set(wide["values"][0]) == set(plain) - {"links"} | {"participants", "reviewers"}
    assert "next" in wide
    narrow = client.get(f"{base}?{STATES}&fields=values.id,values.author.uuid,values.mispelled").json()
    assert set(narrow) == {"values"}
    assert set(narrow["values"][0]) == {"id", "author"}
    assert "rendered" in client.get(f"{base}/1").json()


def test_a_query_that_is_none_and_a_sort_that_is_none_are_refused(sandbox: Sandbox, client: httpx.Client) -> None:
    base = f"{under(busiest(sandbox))}/pullrequests"
    for query in ('state = "OPEN', "id >", "nonsense = 1", 'id = "x"', "(id = 1", "id = 1 id = 2"):
        assert client.get(base, params={"q": query, "state": "ALL"}).status_code == 400, query
    assert client.get(f"{base}?sort=nonsense").json()["error"]["message"] == "Invalid sort attribute"
    assert client.get(f"{base}/activity?q=nonsense(").status_code == 200


def test_times_are_compared_with_quotes_and_without(sandbox: Sandbox, client: httpx.Client) -> None:
    repository = busiest(sandbox)
    base = f"{under(repository)}/pullrequests"
    middle = sorted(pull.updated_on for pull in repository.pull_requests.values())[10]
    newer = sum(pull.updated_on > middle for pull in repository.pull_requests.values())
    for written in (f'"{middle.isoformat()}"', middle.isoformat()):
        params = {"q": f"updated_on > {written}", "state": "ALL", "pagelen": "1"}
        assert client.get(base, params=params).json()["size"] == newer


# -- truth -------------------------------------------------------------------------------------------------------------


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


# -- tokens and budgets ------------------------------------------------------------------------------------------------


def test_tokens_open_what_they_are_for_and_only_when_sent_the_right_way() -> None:
    mail = "ada@acme.example"
    tokens = [
        Token("good"),
        Token("pulls", scopes={"pullrequest"}),
        Token("person", kind="api", email=mail),
        Token("elsewhere", workspaces={"other"}),
    ]
    with Sandbox(SMALL, tokens=tokens) as sandbox, httpx.Client(base_url=sandbox.url) as client:

        def ask(path: str, secret: str | None, auth: tuple[str, str] | None = None) -> httpx.Response:
            headers = {} if auth else {"Authorization": f"Bearer {secret}"}
            return client.get(path, headers=headers, auth=auth)

        assert ask("/workspaces/acme", "good").status_code == 200
        assert ask("/repositories/acme", "pulls").status_code == 200
        refused = ask("/workspaces/acme/members", "pulls")
        assert refused.status_code == 403
        detail = refused.json()["error"]["detail"]
        assert detail == {"required": ["account"], "granted": ["pullrequest", "repository"]}
        assert ask("/user", None, auth=(mail, "person")).status_code == 200
        assert ask("/user", "good").status_code == 403
        for wrong in (ask("/user", "person"), ask("/user", None, auth=(mail, "good")), client.get("/user")):
            assert wrong.status_code == 401
            assert wrong.json()["error"]["message"].startswith("Token is invalid, expired")
        assert ask("/repositories/acme", "elsewhere").status_code == 403
        tokens[0].revoked = True
        assert ask("/workspaces/acme", "good").status_code == 401


def test_a_spent_budget_answers_429_in_plain_text_and_only_access_tokens_are_told_their_limit() -> None:
    tokens = [Token("a"), Token("b"), *(Token(secret, "api", "ada@acme.example") for secret in ("p", "q"))]
    limits = Limits(hourly_limit=3)
    with Sandbox(SMALL, tokens=tokens, limits=limits) as sandbox, httpx.Client(base_url=sandbox.url) as client:
        bearer = {"Authorization": "Bearer a"}
        answers = [client.get("/repositories/acme", headers=bearer) for _ in range(4)]
        assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
        over = answers[-1]
        assert over.text == "Rate limit for this resource has been exceeded"
        assert over.headers["content-type"] == "text/plain"
        assert "retry-after" not in over.headers
        assert [answer.headers["x-ratelimit-nearlimit"] for answer in answers[:3]] == ["false", "false", "true"]
        assert answers[0].headers["x-ratelimit-limit"] == "3"
        assert client.get("/repositories/acme", headers={"Authorization": "Bearer b"}).status_code == 200
        pairs = [("ada@acme.example", secret) for secret in ("p", "q", "p", "q")]
        shared = [client.get("/repositories/acme", auth=pair) for pair in pairs]
        assert [answer.status_code for answer in shared] == [200, 200, 200, 429]
        assert not any("x-ratelimit-limit" in answer.headers for answer in shared)
        limits.retry_after = "seconds"
        assert 3590 < int(client.get("/repositories/acme", headers=bearer).headers["retry-after"]) <= 3601
        limits.window = 0.001
        assert client.get("/repositories/acme", headers=bearer).status_code == 200


def test_what_is_not_there_answers_as_bitbucket_does(sandbox: Sandbox, client: httpx.Client) -> None:
    assert client.get("/workspaces/nobody").status_code == 403
    assert client.get("/repositories/").status_code == 410
    assert client.get("/repositories/acme/nope").json()["error"]["message"] == "Repository acme/nope not found"
    for path in ("/commits", "/pullrequests/activity", "/pullrequests/1/activity"):
        assert client.get(f"/repositories/acme/nope{path}").headers["content-type"].startswith("text/html")
    without = next(repository for repository in sandbox.world.repositories if not repository.has_pipelines)
    assert client.get(f"{under(without)}/pipelines/").status_code == 404
    empty = next(repository for repository in sandbox.world.repositories if repository.main_branch is None)
    assert client.get(under(empty)).json()["mainbranch"] is None
    assert client.get(f"{under(empty)}/commits").json()["values"] == []


def test_a_repository_keeps_its_uuid_when_renamed(sandbox: Sandbox, client: httpx.Client) -> None:
    repository = busiest(sandbox)
    before, slug = repository.slug, sandbox.world.rename_repository(repository)
    assert client.get(f"/repositories/acme/{before}").status_code == 404
    for workspace in ("acme", "{}", sandbox.world.uuid):
        path = f"/repositories/{quote(workspace)}/{quote(repository.uuid)}"
        assert client.get(path).json()["slug"] == slug
    assert slug in client.get(f"{under(repository)}/pullrequests/1").json()["links"]["html"]["href"]


def test_hooks_never_show_their_secret(sandbox: Sandbox, client: httpx.Client) -> None:
    body = {"url": "https://dx.example/hook", "events": ["repo:push"], "description": "dx", "secret": "hush"}
    for owner, subject in (("/workspaces/acme", sandbox.world.uuid), (under(busiest(sandbox)), busiest(sandbox).uuid)):
        made = client.post(f"{owner}/hooks", json=body)
        assert made.status_code == 201
        assert made.json()["secret_set"]
        assert "hush" not in made.text
        uuid = made.json()["uuid"]
        assert sandbox.hooks.secret(subject, uuid) == "hush"
        at = f"{owner}/hooks/{quote(uuid)}"
        assert client.put(at, json={"active": False}).json() | {"active": True} == made.json()
        assert not client.put(at, json={"secret": None}).json()["secret_set"]
        assert [hook["uuid"] for hook in walk(client, f"{owner}/hooks")] == [uuid]
        assert client.delete(at).status_code == 204
        assert client.get(at).status_code == 404


# -- faults ------------------------------------------------------------------------------------------------------------


def test_faults_break_answers_as_told_and_stop_when_told(sandbox: Sandbox, client: httpx.Client) -> None:
    faults: Faults = sandbox.faults
    for status in (500, 502, 503, 555):
        faults.on("^/2.0/workspaces/acme$", status, times=1)
        assert client.get("/workspaces/acme").status_code == status
    faults.on("acme", "html", times=1)
    assert client.get("/workspaces/acme").headers["content-type"].startswith("text/html")
    faults.on("acme", "truncated", times=1)
    with pytest.raises(json.JSONDecodeError):
        client.get("/workspaces/acme").json()
    for action, error in (("cut_off", httpx.RemoteProtocolError), ("reset", httpx.ReadError)):
        faults.on("acme", action, times=1)
        with pytest.raises(error):
            client.get("/workspaces/acme")
    faults.on("acme", "hang", times=1)
    with pytest.raises(httpx.ReadTimeout):
        client.get("/workspaces/acme", timeout=0.1)
    faults.set({"next_origin": "https://evil.example", "errors": 0.0})
    assert (
        client.get("/repositories/acme?pagelen=1")
        .json()["next"]
        .startswith("https://evil.example/2.0/repositories/acme?")
    )
    faults.set({"pages_in_circles": True, "next_origin": None})
    page = client.get("/repositories/acme?pagelen=1&page=3").json()
    assert page["next"].endswith("page=1")
    faults.clear()
    assert client.get("/workspaces/acme").status_code == 200
    faults.compressed = True
    answer = client.get("/repositories/acme")
    assert answer.headers["content-encoding"] == "gzip"
    assert answer.json()["size"] == 8


def test_every_request_is_recorded(sandbox: Sandbox, client: httpx.Client) -> None:
    client.get("/workspaces/acme?x=1")
    client.get("/workspaces/acme", headers={"Authorization": "Bearer wrong"})
    found = [tuple(request) for request in sandbox.requests]
    assert found == [
        ("GET", "/2.0/workspaces/acme?x=1", "workspace-token", 200),
        ("GET", "/2.0/workspaces/acme", None, 401),
    ]
    sandbox.requests.reset()
    assert len(sandbox.requests) == 0


def test_the_sandbox_runs_as_a_process_and_is_led_by_its_back_door() -> None:
    command = [sys.executable, "-m", "dx_dagster.sandbox", "--repositories", "5", "--pull-requests", "30"]
    environment = {**os.environ, "SANDBOX_TOKEN": ""}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        try:
            assert process.stdout is not None
            ready = json.loads(process.stdout.readline())
            door = ready["url"].replace("/2.0", "/_sandbox")
            with connect(ready["url"], ready["token"]) as client:
                assert len(client.get(f"{door}/truth").json()["bitbucket_pulls"]) == 30
                assert len(client.post(f"{door}/step?n=5").json()) == 5
                assert (
                    client.post(f"{door}/faults", json={"on": [{"pattern": ".", "action": "503"}]}).status_code == 200
                )
                assert client.get("/workspaces/acme").status_code == 503
                assert client.post(f"{door}/faults", json={"nonsense": 1}).status_code == 400
                assert client.post(f"{door}/faults", json={"clear": True}).status_code == 200
                assert client.get("/workspaces/acme").status_code == 200
                assert client.get(f"{door}/requests").json() == {"count": 2}
                client.post(f"{door}/tokens/revoke")
                assert client.get("/workspaces/acme").status_code == 401
        finally:
            process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
