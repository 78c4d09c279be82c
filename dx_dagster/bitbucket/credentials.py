"""A credential, and the only code that writes its secret into a header."""

import base64
from collections.abc import Generator
from dataclasses import dataclass
from datetime import date
from typing import Literal

import httpx
from pydantic import SecretStr

from dx_dagster.budgets import names

Kind = Literal["access_token", "api_token"]


@dataclass(frozen=True)
class Credential:
    """An access token (repository, project or workspace), or an account's e-mail address with its API token.

    Raises:
        ValueError: the secret cannot be sent; the message does not show it.
    """

    id: int
    label: str
    kind: Kind
    secret: SecretStr
    username: str | None = None
    expires: date | None = None

    def __post_init__(self) -> None:
        secret = self.secret.get_secret_value()
        # An HTTP library refuses such a header too, but quotes it in its error.
        if not secret or not all("!" <= character <= "~" for character in secret):
            raise ValueError(f"the secret of {self.label!r} is empty or holds spaces, line breaks or accented letters")
        if self.kind == "api_token" and (not self.username or ":" in self.username):
            raise ValueError(f"the API token of {self.label!r} needs the e-mail address of its account")

    @property
    def budget(self) -> str:
        """The name of the budget that it draws on."""
        return names.name_of(self.kind, self.id, self.username)

    def redact(self, text: str) -> str:
        """`text` without this secret, in plain and as the Authorization header encodes it."""
        for shown in (self.secret.get_secret_value(), self._authorization().partition(" ")[2]):
            text = text.replace(shown, "…")
        return text

    def _authorization(self) -> str:
        secret = self.secret.get_secret_value()
        if self.kind == "access_token":
            return f"Bearer {secret}"
        # An API token sent as Bearer answers 401: bitbucket-api.md, section 2.
        return f"Basic {base64.b64encode(f'{self.username}:{secret}'.encode()).decode('ascii')}"


class CredentialAuth(httpx.Auth):
    """Adds the Authorization header when httpx sends the request."""

    def __init__(self, credential: Credential) -> None:
        self._credential = credential

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        request.headers["Authorization"] = self._credential._authorization()  # noqa: SLF001
        yield request
