"""Listings of the sandbox: pages, cursors, sorting, filters and fields."""

from urllib.parse import quote

import httpx

from dx_dagster.sandbox import Sandbox
from dx_dagster_tests.sandbox.asking import STATES, busiest, under, walk


def test_pages_are_limited_to_50_for_pull_requests_and_activity_and_to_100_elsewhere(
    sandbox: Sandbox, client: httpx.Client
) -> None:
    base = under(busiest(sandbox))
    limits = {"/pullrequests": 50, "/pullrequests/activity": 50, "/pullrequests/1/activity": 50}
    limits |= {"/pullrequests/1/comments": 100, "/pullrequests/1/commits": 100, "/commits": 100, "/pipelines": 100}
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


def test_next_of_pipelines_drops_the_sort(sandbox: Sandbox, client: httpx.Client) -> None:
    repository = busiest(sandbox)
    newest = client.get(f"{under(repository)}/pipelines?sort=-created_on&pagelen=3&fields=%2Bvalues.x").json()
    assert newest["values"][0]["build_number"] == len(repository.pipelines)
    assert newest["next"].endswith("/pipelines?pagelen=3&page=2")
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


def test_an_invalid_query_and_an_invalid_sort_answer_400(sandbox: Sandbox, client: httpx.Client) -> None:
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
