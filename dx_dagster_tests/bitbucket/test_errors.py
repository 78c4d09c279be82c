"""What errors say, and what neither they nor anything else may show."""

import json
import logging

import httpx
import pytest
from pydantic import SecretStr
from starlette.responses import Response

from dx_dagster.bitbucket import (
    BadRequest,
    BitbucketError,
    Credential,
    Forbidden,
    Gone,
    NotFound,
    RateLimited,
    Unauthorized,
    Unavailable,
    from_response,
    sign,
    verify,
)
from dx_dagster_tests.bitbucket.answering import Server, opened, raw, resets, token
from dx_dagster_tests.payloads.evidence import ERRORS, Payload, each

pytestmark = pytest.mark.anyio


# Errors


def answered(status: int, body: str | bytes, kind: str = "application/json") -> BitbucketError:
    request = httpx.Request("GET", "https://api.bitbucket.org/2.0/repositories/acme?access_token=hidden")
    return from_response(httpx.Response(status, content=body, headers={"content-type": kind}, request=request))


QUOTED = [
    (401, '{"type": "error", "error": {"message": "Access token expired."}}', Unauthorized, "Access token expired."),
    (401, "", Unauthorized, None),
    (403, '{"error":{"message":"Forbidden"}}', Forbidden, "Forbidden"),
    (403, '{"error": "Forbidden"}', Forbidden, "Forbidden"),
    (404, "<html><head><title>No</title><style>a{}</style></head><body><h1>Not &amp; found</h1></body></html>",
     NotFound, "No Not & found"),
    (404, '{"error":{"message":"Commit not found","data":{"shas":["ab"]}}}', NotFound, "Commit not found"),
    (410, '{"type":"error","error":{"message":"CHANGE-2770 - deprecated","detail":"Please read","data":{"a":1}}}',
     Gone, "CHANGE-2770 - deprecated; Please read"),
    (400, '{"type":"error","error":{"message":"Invalid pagelen"}}', BadRequest, "Invalid pagelen"),
    (400, '{"error":{"message":"No","fields":{"x":["must be","short"],"y":null}}}', BadRequest,
     "No; x: must be; x: short"),
    (400, '{"error":{"message":"There is no such subject.","fields":{"url":"Enter a valid URL."}}}', BadRequest,
     "There is no such subject. url: Enter a valid URL."),
    (429, "Rate limit for this resource has been exceeded", RateLimited,
     "Rate limit for this resource has been exceeded"),
    (555, '{"type":"error","error":{"message":"Unable to respond in time"}}', Unavailable, "Unable to respond in time"),
    (502, b"\xff\xfe\x00", Unavailable, ...),
    (400, "[" * 100_000, BadRequest, ...),
    (400, '["a", {"b": 1}, [2]]', BadRequest, 'a; {"b": 1}'),
    (400, '{"error":{"message":{"en":"x"},"detail":["y"],"fields":[]}}', BadRequest, '{"en": "x"}; y'),
    (418, "", BadRequest, None),
]  # fmt: skip


@pytest.mark.parametrize(("status", "body", "kind", "message"), QUOTED)
def test_an_error_body_of_any_shape_is_read(status, body, kind, message) -> None:
    error = answered(status, body, "text/html; charset=rot13")  # which is no encoding of texts
    assert type(error) is kind
    assert message is ... or error.message == message
    assert "hidden" not in str(error)
    assert str(error).startswith(f"GET /2.0/repositories/acme answered {status}")


@each(*ERRORS)
def test_an_error_body_that_was_seen_is_read(payload: Payload) -> None:
    body = payload.read()
    error = answered(403, body)
    assert json.loads(body)["error"]["message"] in str(error)
    if payload.name.endswith("error-privileges.json"):
        assert isinstance(error, Forbidden)
        assert (error.code, error.missing) == ("invalid_permissions", ("project",))
        assert "missing: project" in str(error)


# Secrets


async def test_a_secret_shows_nowhere(api: Server, caplog) -> None:
    secret, email = "ATCTT3xFfGN0-topsecret", "ann@acme.example"
    pair = [token(1, secret), Credential(2, "api", "api_token", SecretStr(secret), email)]
    for credential in pair:
        assert secret not in f"{credential!r} {credential}"
    api.answer = lambda request: Response(f"denied: {request.headers['authorization']}", 403)
    caplog.set_level(logging.DEBUG)
    async with opened(api.base, *pair) as client:
        with pytest.raises(Forbidden) as error:
            await client.get("/x", {"q": "private"})
    async with raw(resets) as (base, _), opened(base, *pair) as client:
        with pytest.raises(Unavailable) as failure:
            await client.get("/x", {"q": "private"})
    shown = "".join([caplog.text, *(f"{one!r} {one} {vars(one)}" for one in (error.value, failure.value))])
    sent = {request.headers["authorization"].split()[1] for request in api.seen}
    assert len(sent) == 2
    assert not [part for part in (secret, "private", *sent) if part in shown]
    assert "GET /2.0/x 403" in caplog.text
    assert {record.name.split(".")[0] for record in caplog.records} <= {"dx_dagster", "asyncio"}


@pytest.mark.parametrize("secret", ["", "two words", "line\nbreak", "schlüssel"])
def test_a_secret_that_cannot_be_sent_is_refused_without_being_shown(secret: str) -> None:
    with pytest.raises(ValueError, match="the secret of 'token 1'") as error:
        Credential(1, "token 1", "access_token", SecretStr(secret))
    assert not secret or secret not in str(error.value)


def test_a_delivery_is_believed_when_any_of_the_secrets_signed_it() -> None:
    """Atlassian's own test vector."""
    secret, body = "It's a Secret to Everybody", b"Hello World!"
    header = "sha256=a4771c39fbe90f317c7824e83ddef3caae9cb3d976c214ace1f2937e133263c9"
    assert sign(body, SecretStr(secret)) == header
    assert verify(body, header, ["an older one", SecretStr(secret)])
    assert not verify(body + b" ", header, [secret])
    assert not verify(body, sign(body, ""), ["", SecretStr("")])
    assert not any(verify(body, wrong, [secret]) for wrong in (None, "", "sha256=", "sha1=00", "ünïcode", header[7:]))
