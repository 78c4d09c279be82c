"""The forms of the connections pages."""

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
    """The values of a form. The secret is never sent back."""

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
        """Reads the form. Without `kind` and `credential`, the form chooses the types."""
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
        """The credential in the field names of the API.

        Raises:
            VerificationFailed: the date is invalid.
        """
        basic = self.method == "basic"
        password = "api_token" if self.type == "jira_cloud" else "password"
        username = {"jira_user" if self.type == "jira_cloud" else "username": self.username} if basic else {}
        secret = {password if basic else "api_token": self.secret}
        return Fields(self.label or None, username, secret, self._day())

    def new_fields(self) -> Fields:
        """`fields` of a credential that is complete.

        Raises:
            VerificationFailed: a half is missing, or the date is invalid.
        """
        token, basic = self.secret.get_secret_value(), self.method == "basic"
        if not token or (basic and not self.username):
            needed = "the e-mail address and the Atlassian API token" if basic else "the workspace access token"
            raise VerificationFailed(Failure("invalid_credentials", f"Enter {needed}."))
        return self.fields()

    def follow(self, failure: Failure) -> None:
        """Chooses the kind of credential that the refused secret looks like."""
        if failure.looks_like is not None and self.type != "jira_cloud":
            self.method = "basic" if failure.looks_like == "api_token" else "api_token"

    def changes(self, label: str) -> Changes:
        """Changes of a credential with the given label. An empty secret stays, an empty day removes the expiry.

        Raises:
            VerificationFailed: the date is invalid.
        """
        fields = self.fields()
        new_label = self.label if self.label != label else None
        return Changes(new_label or None, fields.settings, fields.secrets, True, fields.expiration_date)

    def _day(self) -> date | None:
        try:
            return date.fromisoformat(self.expiration_date) if self.expiration_date else None
        except ValueError:
            reason = f"{self.expiration_date[:40]!r} is not a date. Use the form 2027-01-31."
            raise VerificationFailed(Failure("invalid_credentials", reason)) from None


def line(form: FormData, name: str) -> str:
    """One field as a trimmed line of text; empty if it is missing."""
    value = form.get(name)
    text = value.strip() if isinstance(value, str) else ""
    return "".join(character for character in text[:_LONGEST] if character.isprintable())
