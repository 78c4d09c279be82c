"""Verifying credentials: every way it can fail has its code, its sentence and its hint."""

import re

import pytest

from dx_dagster.connections import actions
from dx_dagster.connections.input import jira_site
from dx_dagster.connections.workspace_names import GivenError, workspace_slug
from dx_dagster.sandbox.tokens import Token
from dx_dagster.warehouse.connections import connections
from dx_dagster_tests.connecting import (
    API_TOKEN,
    EMAIL,
    SECOND,
    TOKEN,
    at,
    connect,
    failure,
    run,
    stored,
)
from dx_dagster_tests.servers import answering, self_signed

pytestmark = pytest.mark.usefixtures("impatient")


# Verification


def test_both_kinds_of_credentials_are_taken(settings):
    connect(settings)
    connect(settings, API_TOKEN, EMAIL)
    assert [row[1:4] for row in stored(settings)] == [
        ("access_token", "Access token …0001", {}),
        ("api_token", f"API token of {EMAIL}", {"username": EMAIL}),
    ]


def test_no_page_is_asked_for_that_is_smaller_than_bitbucket_documents(settings, sandbox):
    connect(settings)
    sizes = [int(size) for _, path, _, _ in sandbox.requests for size in re.findall(r"[?&]pagelen=(\d+)", path)]
    assert sizes
    assert min(sizes) >= 10


@pytest.mark.parametrize("around", ["  {}\n", '"{}"', "'{}' ", "\ufeff{}\u200b"])
def test_what_was_copied_along_is_left_behind(settings, around):
    connect(settings, around.format(TOKEN))
    assert stored(settings)[0][5] == "0001"


def test_a_wrong_token_is_invalid_credentials(settings, sandbox):
    failed = failure(settings, "ATCTT3xSomethingElse")
    assert failed.code == "invalid_credentials"
    assert "Token is invalid, expired, or not supported" in failed.reason
    assert failed.curl == (
        "curl -i -H 'Authorization: Bearer YOUR_TOKEN' -H 'Accept: application/json' "
        f"'{sandbox.url}/repositories/acme?pagelen=10'"
    )


@pytest.mark.parametrize(
    ("secret", "username", "hint"),
    [
        (API_TOKEN, None, "looks like an Atlassian API token."),
        (TOKEN, EMAIL, "looks like a workspace access token."),
        ("ATBBxyzOldAppPassword", None, "app password; Bitbucket removed those on 2026-07-28"),
        ("ATBBxyzOldAppPassword", "robot", "app password; Bitbucket removed those on 2026-07-28"),
        ("ATATT3xOther", "robot", "The user name must be the e-mail address"),
        ("ATATT3xOther", "other@example.com", "has not expired"),
        ("unknown", None, "may be revoked or expired"),
        (f"Bearer {TOKEN}", None, "without the word before it"),
        ("two words", None, "it is one word"),
        ("", None, "it is one word"),
    ],
)
def test_usual_mistakes_get_a_hint(settings, secret, username, hint):
    failed = failure(settings, secret, username)
    assert failed.code == "invalid_credentials"
    assert hint in failed.hint


@pytest.mark.parametrize(
    ("kind", "scopes", "missing"),
    [
        ("workspace", ["repository"], "account, pipeline, pullrequest"),
        ("workspace", ["repository", "pullrequest", "account"], "pipeline"),
        ("workspace", ["webhook"], "account, repository"),
        ("api", ["read:repository:bitbucket", "read:workspace:bitbucket"], "read:pipeline:bitbucket, read:pullrequest"),
    ],
)
def test_missing_scopes_are_named_all_at_once(settings, sandbox, kind, scopes, missing):
    email = EMAIL if kind == "api" else None
    sandbox.tokens[:] = [Token("ATxTT3xNarrowToken", kind=kind, email=email, scopes=scopes)]
    failed = failure(settings, "ATxTT3xNarrowToken", email)
    assert failed.code == "invalid_permissions"
    assert missing in failed.reason
    assert "Create a new token with the scopes" in failed.hint
    assert "YOUR_TOKEN" in failed.curl


def test_a_token_of_another_workspace(settings, sandbox):
    sandbox.tokens[:] = [Token(TOKEN, workspaces=["other"]), Token(API_TOKEN, kind="api", email=EMAIL)]
    failed = failure(settings)
    assert failed.code in {"invalid_permissions", "no_resources"}
    assert "it was made in" in failed.hint
    failed = failure(settings, API_TOKEN, EMAIL, workspace="amce")
    assert failed.code in {"invalid_permissions", "no_resources"}
    assert failed.hint == "This credential sees workspace acme."


def test_no_repository_in_sight(settings):
    with answering({"/repositories/acme": (200, '{"values": []}'), "/user/workspaces": (403, "{}")}) as url:
        failed = failure(at(settings, url))
    assert failed.code == "no_resources"
    assert "sees no repository in workspace acme" in failed.reason


@pytest.mark.parametrize("said", ["No workspace acme", "No workspace acme.", "No workspace acme:"])
def test_a_missing_workspace_is_no_resources_with_one_full_stop_after_what_bitbucket_said(settings, said):
    answers = {"/repositories/acme": (404, f'{{"error": {{"message": "{said}"}}}}'), "": (403, "{}")}
    with answering(answers) as url:
        failed = failure(at(settings, url))
    assert (failed.code, failed.reason) == (
        "no_resources",
        "There is no workspace acme that this credential can see. Bitbucket said: No workspace acme.",
    )


@pytest.mark.parametrize(
    ("action", "sentence"),
    [
        ("hang", "127.0.0.1 did not answer in time."),
        ("html", "127.0.0.1 answered with a page that is not an answer of Bitbucket's API."),
        ("reset", "127.0.0.1 cannot be reached."),
        (503, "Bitbucket answered 503, so the credential could not be verified."),
        ("throttle", "Bitbucket limits the rate of this credential at the moment"),
    ],
)
def test_silence_is_unavailable_and_says_so(settings, sandbox, action, sentence):
    sandbox.faults.hang_seconds = 3
    sandbox.faults.on("/repositories/acme", action)
    failed = failure(settings)
    assert (failed.code, failed.reason.startswith(sentence)) == ("unavailable", True), failed
    assert "YOUR_TOKEN" in failed.curl


def test_a_certificate_that_nobody_vouches_for(settings, tmp_path):
    with answering({}, **self_signed(tmp_path)) as url:
        failed = failure(at(settings, url))
    assert failed.code == "unavailable"
    assert failed.reason == "The certificate of 127.0.0.1 cannot be verified, so nothing was sent."
    assert "SSL_CERT_FILE" in failed.hint


def test_pipelines_and_closed_repositories_do_not_stand_in_the_way(settings, sandbox):
    for repository in sandbox.world.repositories:
        sandbox.faults.on(f"/repositories/acme/.*{repository.uuid[1:-1]}.*/pipelines", 404)
    assert connect(settings).state == "verified"
    assert {status for _, path, _, status in sandbox.requests if "/pipelines" in path} == {404}


def test_pipelines_connection_needs_pipelines_only(settings, sandbox):
    sandbox.tokens[:] = [Token(TOKEN), Token(SECOND, scopes=["repository", "pipeline"])]
    connect(settings)
    connect(settings, SECOND, kind="bitbucket_pipelines")
    assert run(settings, lambda w: actions.pool_for_pipelines(w, "acme")) == "bitbucket_pipelines"
    connection = run(settings, lambda w: connections.find(w, "acme", "bitbucket_pipelines"))
    run(settings, lambda w: actions.disable(w, connection, 2, "resting"))
    assert run(settings, lambda w: actions.pool_for_pipelines(w, "acme")) == "bitbucket"


def test_names_and_addresses_are_read_out_of_what_people_paste():
    for given in ("acme", " acme ", "https://bitbucket.org/acme/", "bitbucket.org/acme/workspace/overview",
                  "https://www.bitbucket.org/acme?x=1", "HTTPS://Bitbucket.org/acme/widget/src/main/"):  # fmt: skip
        assert workspace_slug(given) == "acme"
    for given in ("", "a b", "https://bitbucket.org/", "https://example.com/acme", "acme/widget", "a" * 5000):
        with pytest.raises(GivenError):
            workspace_slug(given)
    for given in ("acme.atlassian.net", "https://acme.atlassian.net/", " https://acme.atlassian.net/jira/software/x?y"):
        assert jira_site(given) == "https://acme.atlassian.net"
    assert jira_site("http://localhost:8080/jira") == "http://localhost:8080"
    gateway = "https://api.atlassian.com/ex/jira/11223344-a1b2"
    assert jira_site(f"{gateway}/rest/api/3/myself") == gateway
    for given in (
        "",
        "http://acme.atlassian.net",
        "https://u:p@acme.atlassian.net",
        "ftp://x",
        "https://[",
        "a b",
        "api.atlassian.com",
    ):
        with pytest.raises(GivenError):
            jira_site(given)


# Jira


def test_a_jira_site_is_connected_and_its_failures_are_told(settings):
    answers = {
        "/rest/api/3/myself": (401, "Client must be authenticated"),
        "/rest/api/3/user/bulk": (200, '{"values": [{"accountId": "1"}]}'),
    }
    with answering(answers) as url:
        site = url.removesuffix("/2.0")
        failed = failure(settings, API_TOKEN, EMAIL, kind="jira_cloud", jira_url=site)
        assert failed.code == "invalid_credentials"
        assert failed.curl == (f"curl -i -u {EMAIL}:YOUR_TOKEN -H 'Accept: application/json' {site}/rest/api/3/myself")
        answers["/rest/api/3/myself"] = (404, "<html>nothing</html>")
        assert failure(settings, API_TOKEN, EMAIL, kind="jira_cloud", jira_url=site).code == "no_resources"
        answers["/rest/api/3/myself"] = (200, '{"accountId": "1", "emailAddress": "robot@example.com"}')
        answers["/rest/api/3/user/bulk"] = (403, '{"errorMessages": ["Forbidden"]}')
        failed = failure(settings, API_TOKEN, EMAIL, kind="jira_cloud", jira_url=site)
        assert (failed.code, "Browse users and groups" in failed.hint) == ("invalid_permissions", True)
        assert "user/bulk?accountId=1" in failed.curl
        answers["/rest/api/3/user/bulk"] = (200, '{"values": [{"accountId": "1"}]}')
        found = connect(settings, API_TOKEN, EMAIL, kind="jira_cloud", jira_url=site)
    assert (found.type, found.settings, found.state) == ("jira_cloud", {"jira_url": site}, "verified")
