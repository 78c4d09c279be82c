"""Error answers of the API."""

import json
from typing import Any


def error(message: str, *, typed: bool = True, **more: Any) -> bytes:
    """The documented error body (docs/bitbucket-api.md, "Errors")."""
    body: dict[str, Any] = {"type": "error"} if typed else {}
    return json.dumps(body | {"error": {"message": message} | more}).encode()


class Refused(Exception):  # noqa: N818 - it is an answer, not a failure
    """An answer other than 200."""

    def __init__(
        self,
        status: int,
        body: bytes,
        headers: dict[str, str] | None = None,
        *,
        content_type: str = "application/json; charset=utf-8",
    ) -> None:
        super().__init__(status)
        self.status, self.body, self.headers, self.content_type = status, body, headers or {}, content_type


def html_not_found() -> Refused:
    """The 404 of commits and activity of a missing repository: a page of HTML (docs/bitbucket-api.md, "Errors")."""
    page = b"<!DOCTYPE html><html><head><title>Repository not found</title></head><body><h1>404</h1></body></html>"
    return Refused(404, page, content_type="text/html; charset=utf-8")


def gone() -> Refused:
    """The answer of the listings across workspaces, which CHANGE-2770 removed."""
    return Refused(
        410,
        error(
            "CHANGE-2770 - Functionality has been deprecated",
            detail="Please read the changelog entry for more details.",
            data={"announcement_url": "https://developer.atlassian.com/cloud/bitbucket/changelog#CHANGE-2770"},
        ),
    )
