"""What the forms of the connections page hold."""

from dataclasses import dataclass, field
from datetime import date

from pydantic import SecretStr
from starlette.datastructures import FormData
from starlette.requests import Request

from dx_dagster.importer.connections import Failure, VerificationFailed
from dx_dagster.importer.given import Fields
from dx_dagster.warehouse.connections import ConnectionType

_LONGEST = 4000


@dataclass
class Form:
    """What was typed, without the secret, which is never sent back."""

    type: ConnectionType = "bitbucket"
    method: str = "api_token"
    workspace: str = ""
    name: str = ""
    jira_url: str = ""
    username: str = ""
    label: str = ""
    expiration_date: str = ""
    secret: SecretStr = field(default=SecretStr(""), repr=False)

    @classmethod
    async def read(cls, request: Request) -> "Form":
        form = await request.form(max_files=0, max_fields=50)
        kind, method = _line(form, "type"), _line(form, "method")
        type_: ConnectionType = "bitbucket"
        if kind == "bitbucket_pipelines":
            type_ = "bitbucket_pipelines"
        elif kind == "jira_cloud":
            type_, method = "jira_cloud", "basic"
        names = ("workspace", "name", "jira_url", "username", "label", "expiration_date")
        return cls(
            type_,
            "basic" if method == "basic" else "api_token",
            **{name: _line(form, name) for name in names},
            secret=SecretStr(_line(form, "secret")),
        )

    def fields(self) -> Fields:
        """The credential, as the API would be given it.

        Raises:
            VerificationFailed: the day cannot be read.
        """
        basic = self.method == "basic"
        password = "api_token" if self.type == "jira_cloud" else "password"
        username = {"jira_user" if self.type == "jira_cloud" else "username": self.username} if basic else {}
        secret = {password if basic else "api_token": self.secret}
        return Fields(self.label or None, username, secret, self._day())

    def _day(self) -> date | None:
        try:
            return date.fromisoformat(self.expiration_date) if self.expiration_date else None
        except ValueError:
            reason = f"{self.expiration_date[:40]!r} is no day; write it as 2027-01-31."
            raise VerificationFailed(Failure("invalid_credentials", reason)) from None


def _line(form: FormData, name: str) -> str:
    value = form.get(name)
    text = value.strip() if isinstance(value, str) else ""
    return "".join(character for character in text[:_LONGEST] if character.isprintable())
