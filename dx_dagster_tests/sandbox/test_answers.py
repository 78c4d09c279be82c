"""Tokens, errors, hooks and faults of the sandbox."""

import json
import os
import signal
import subprocess
import sys
from urllib.parse import quote

import httpx
import pytest

from dx_dagster.sandbox import Faults, RateLimit, Sandbox, Token
from dx_dagster_tests.sandbox.asking import SMALL, busiest, connect, under, walk

# -- tokens and budgets ------------------------------------------------------------------------------------------------


def test_a_token_opens_its_scopes_and_only_with_its_own_scheme() -> None:
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


def test_beyond_the_rate_limit_answers_are_429_and_only_access_tokens_get_its_headers() -> None:
    tokens = [Token("a"), Token("b"), *(Token(secret, "api", "ada@acme.example") for secret in ("p", "q"))]
    limits = RateLimit(hourly_limit=3)
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


def test_missing_things_answer_as_bitbucket_does(sandbox: Sandbox, client: httpx.Client) -> None:
    assert client.get("/workspaces/nobody").status_code == 403
    assert client.get("/repositories/").status_code == 410
    assert client.get("/repositories/acme/nope").json()["error"]["message"] == "Repository acme/nope not found"
    for path in ("/commits", "/pullrequests/activity", "/pullrequests/1/activity"):
        assert client.get(f"/repositories/acme/nope{path}").headers["content-type"].startswith("text/html")
    without = next(repository for repository in sandbox.world.repositories if not repository.has_pipelines)
    assert client.get(f"{under(without)}/pipelines").status_code == 404
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


def test_a_member_is_found_by_uuid_and_by_account_id(sandbox: Sandbox, client: httpx.Client) -> None:
    user = sandbox.world.people.members[0]
    listed = walk(client, "/workspaces/acme/members?pagelen=100")[0]
    for key in (quote(user.uuid), quote(user.account_id or "")):
        assert client.get(f"/workspaces/acme/members/{key}").json() == listed
    sandbox.world.remove_member(user)
    assert client.get(f"/workspaces/acme/members/{quote(user.uuid)}").status_code == 404


def test_a_token_without_access_sees_an_empty_list(sandbox: Sandbox, client: httpx.Client) -> None:
    inside = [f"{under(busiest(sandbox))}{path}" for path in ("", "/pullrequests", "/pullrequests/1", "/pipelines")]
    sandbox.token.sees_nothing = True
    assert client.get("/repositories/acme").json()["values"] == []
    assert {client.get(path).status_code for path in inside} == {404}
    assert client.get("/workspaces/acme").status_code == 200
    sandbox.token.sees_nothing = False
    assert len(walk(client, "/repositories/acme")) == 8
    assert {client.get(path).status_code for path in inside} == {200}


# -- faults ------------------------------------------------------------------------------------------------------------


def test_each_fault_breaks_answers_until_it_is_cleared(sandbox: Sandbox, client: httpx.Client) -> None:
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
    runs = f"{under(busiest(sandbox))}/pipelines"
    assert client.get(runs).status_code == 200
    faults.pipelines_with_slash_only = True
    assert [client.get(path).status_code for path in (runs, f"{runs}/")] == [404, 200]
    faults.clear()
    assert client.get("/workspaces/acme").status_code == 200
    faults.compressed = True
    answer = client.get("/repositories/acme")
    assert answer.headers["content-encoding"] == "gzip"
    assert answer.json()["size"] == 8


def test_faults_thin_out_lists_whose_rows_still_answer(sandbox: Sandbox, client: httpx.Client) -> None:
    base, repository = under(busiest(sandbox)), busiest(sandbox)
    commented = max(repository.pull_requests.values(), key=lambda pull: len(pull.comments))
    pull, hook = f"{base}/pullrequests/{commented.number}", {"url": "https://dx.example", "events": ["repo:push"]}
    client.post("/workspaces/acme/hooks", json=hook)
    at = {
        "repositories": "/repositories/acme",
        "members": "/workspaces/acme/members",
        "hooks": "/workspaces/acme/hooks",
        "pullrequests": f"{base}/pullrequests?state=ALL&sort=id",
        "commits": f"{base}/commits",
        "comments": f"{pull}/comments",
        "activity": f"{pull}/activity",
        "pipelines": f"{base}/pipelines",
    }
    whole = {name: walk(client, path) for name, path in at.items()}
    sandbox.faults.empty_lists = list(at)
    assert all(rows and not walk(client, at[name]) for name, rows in whole.items())
    sandbox.faults.clear()
    sandbox.faults.lists_lack = {"repositories": 0.5, "pullrequests": 0.1}
    shown = {name: walk(client, path) for name, path in at.items()}
    assert len(shown["repositories"]) == 4
    assert len(whole["pullrequests"]) - len(shown["pullrequests"]) == len(whole["pullrequests"]) // 10
    assert all(shown[name] == whole[name] for name in at.keys() - {"repositories", "pullrequests"})
    missing = [row for row in whole["pullrequests"] if row not in shown["pullrequests"]]
    assert {client.get(f"{base}/pullrequests/{row['id']}").status_code for row in missing} == {200}
    after = shown["pullrequests"][4]["id"]
    keyset = walk(client, f"{at['pullrequests']}&q=id%3E{after}")
    assert keyset == [row for row in shown["pullrequests"] if row["id"] > after]


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


def test_a_sandbox_in_its_own_process_is_steered_by_the_control_routes() -> None:
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
                assert client.post(f"{door}/faults", json={"empty_lists": ["tags"]}).status_code == 400
                client.post(f"{door}/tokens/lose", json={"secret": ready["token"]})
                assert client.get("/repositories/acme").json()["values"] == []
                client.post(f"{door}/tokens/revoke")
                assert client.get("/workspaces/acme").status_code == 401
        finally:
            process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
