"""What the forms of the connections page hold."""

from dataclasses import dataclass, field
from datetime import date

from pydantic import SecretStr
from starlette.datastructures import FormData
from starlette.requests import Request

from dx_dagster.connections.actions import Changes, Failure, VerificationFailed
from dx_dagster.connections.input import Fields
from dx_dagster.warehouse.connections.connections import ConnectionType
from dx_dagster.warehouse.connections.credentials import CredentialType

_LONGEST = 4000
_TYPES: dict[str, ConnectionType] = {"bitbucket_pipelines": "bitbucket_pipelines", "jira_cloud": "jira_cloud"}


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
    async def read(
        cls, request: Request, kind: ConnectionType | None = None, credential: CredentialType | None = None
    ) -> "Form":
        """What was sent; the types of connection and credential are chosen in the form where none are given."""
        form = await request.form(max_files=0, max_fields=50)
        type_ = kind or _TYPES.get(line(form, "type"), "bitbucket")
        basic = (
            type_ == "jira_cloud" or credential == "api_token" or (not credential and line(form, "method") == "basic")
        )
        names = ("workspace", "name", "jira_url", "username", "label", "expiration_date")
        return cls(
            type_,
            "basic" if basic else "api_token",
            **{name: line(form, name) for name in names},
            secret=SecretStr(line(form, "secret")),
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

    def changes(self, label: str) -> Changes:
        """What to change of a credential that was labelled `label`: an empty secret stays, an empty day goes.

        Raises:
            VerificationFailed: the day cannot be read.
        """
        fields = self.fields()
        new_label = self.label if self.label != label else None
        return Changes(new_label or None, fields.settings, fields.secrets, True, fields.expiration_date)

    def _day(self) -> date | None:
        try:
            return date.fromisoformat(self.expiration_date) if self.expiration_date else None
        except ValueError:
            reason = f"{self.expiration_date[:40]!r} is no day; write it as 2027-01-31."
            raise VerificationFailed(Failure("invalid_credentials", reason)) from None


def line(form: FormData, name: str) -> str:
    """One field as a line of text without what surrounds it; empty where it is missing."""
    value = form.get(name)
    text = value.strip() if isinstance(value, str) else ""
    return "".join(character for character in text[:_LONGEST] if character.isprintable())
