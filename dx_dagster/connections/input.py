"""Parses input: addresses of Jira sites, credentials."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from hashlib import sha256
from typing import Any
from urllib.parse import urlsplit

from pydantic import SecretStr

from dx_dagster.bitbucket import Credential
from dx_dagster.connections.workspace_names import GivenError
from dx_dagster.settings import is_loopback
from dx_dagster.warehouse.connections.connections import ConnectionType
from dx_dagster.warehouse.connections.credentials import CredentialType, NewCredential, StoredCredential

_GATEWAY = re.compile(r"/ex/jira/[A-Za-z0-9-]{1,64}(?=/|$)")  # of tokens with scopes
# Copying a token may add quotes and invisible characters.
_AROUND = "\"'`\u200b\u200c\u200d\u2060\ufeff"


def jira_site(given: str) -> str:
    """The base URL of a Jira site, from any address within the site.

    Raises:
        GivenError: it is not one.
    """
    trimmed = given.strip()
    try:
        parts = urlsplit(trimmed if "://" in trimmed else f"https://{trimmed}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if not host or parts.username or parts.password or not re.fullmatch(r"[A-Za-z0-9.:-]+", host):
        raise GivenError(
            f"{given[:100]!r} is not a valid address of a Jira site; an example is https://acme.atlassian.net."
        )
    if parts.scheme != "https" and not (parts.scheme == "http" and is_loopback(host)):
        raise GivenError(
            "The address of the Jira site must begin with https://: any other scheme would expose the token."
        )
    if host == "api.atlassian.com":
        gateway = _GATEWAY.match(parts.path)
        if gateway is None:
            raise GivenError("Give the address of the Jira site itself; an example is https://acme.atlassian.net.")
        return f"https://{host}{gateway[0]}"
    shown = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{shown}{f':{port}' if port else ''}"


@dataclass(frozen=True)
class Fields:
    """A credential in the field names of the Data Cloud API and the forms. Empty fields count as missing."""

    label: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    secrets: Mapping[str, SecretStr] = field(default_factory=dict)
    expiration_date: date | None = None

    def digest(self) -> bytes:
        """A hash of all of it. A secret is too random to be guessed from it."""
        secrets = {name: secret.get_secret_value() for name, secret in self.secrets.items()}
        content = [self.label, dict(self.settings), secrets, str(self.expiration_date)]
        return sha256(json.dumps(content, sort_keys=True).encode()).digest()

    def setting(self, *names: str) -> str | None:
        for name in names:
            value = self.settings.get(name)
            if isinstance(value, str) and value.strip():
                return value.strip()
        return None

    def secret(self, *names: str) -> SecretStr | None:
        for name in names:
            value = self.secrets.get(name)
            if value is not None and trimmed(value).get_secret_value():
                return value
        return None


def new_credential(
    secret: SecretStr, username: str | None = None, label: str | None = None, expires: date | None = None
) -> NewCredential:
    """A credential from its parts: an access token alone, or an API token with the e-mail address of its account.

    Its label is one line, so that no line of a list is another one's.
    """
    clean, label = trimmed(secret), _in_one_line(label or "")
    if username and username.strip():
        default = f"API token of {username.strip()}"
        return NewCredential("api_token", label or default, clean, username.strip(), expires, bool(label))
    shown = clean.get_secret_value()[-4:] if len(clean.get_secret_value()) > 12 else ""  # noqa: PLR2004 - as `hint`
    return NewCredential("access_token", label or f"Access token …{shown}", clean, None, expires, bool(label))


def _in_one_line(text: str) -> str:
    return " ".join("".join(one if one.isprintable() else " " for one in text).split())


def credential_of(kind: ConnectionType, fields: Fields, before: StoredCredential | None = None) -> NewCredential:
    """The credential that the fields describe. Missing fields are taken from `before`.

    Raises:
        GivenError: the fields describe two credentials, or half of one.
    """
    token, password, username = _parts(kind, fields)
    if token and (password or username):
        raise GivenError(
            "Give secrets.api_token alone (a workspace access token), or settings.username with secrets.password (an "
            "Atlassian API token with its e-mail address), not both."
        )
    how: CredentialType = (
        "access_token" if token or (before is not None and before.type == "access_token") else "api_token"
    )
    if password or username:
        how = "api_token"
    same_kind = before is not None and before.type == how
    secret = token or password or (before.secret if before is not None and same_kind else None)
    if how == "api_token":
        username = username or (before.username if before is not None and same_kind else None)
    if secret is None or (how == "api_token" and not username):
        raise GivenError(_NEEDED[kind])
    label = fields.label or (_own_label(before) if before is not None else None)
    return new_credential(secret, username if how == "api_token" else None, label, fields.expiration_date)


_NEEDED: dict[ConnectionType, str] = {
    "bitbucket": "A credential is secrets.api_token, or settings.username together with secrets.password.",
    "bitbucket_pipelines": "A credential is secrets.api_token, or settings.username together with secrets.password.",
    "jira_cloud": "A credential is settings.jira_user (an e-mail address) together with secrets.api_token.",
}


def _parts(kind: ConnectionType, fields: Fields) -> tuple[SecretStr | None, SecretStr | None, str | None]:
    """Access token, API token and user name."""
    if kind == "jira_cloud":
        return None, fields.secret("api_token", "password"), fields.setting("jira_user", "username")
    return fields.secret("api_token"), fields.secret("password"), fields.setting("username")


def _own_label(before: StoredCredential) -> str | None:
    """The label that was chosen by hand; a generated one follows the credential."""
    return None if before.label == new_credential(before.secret, before.username).label else before.label


def trimmed(secret: SecretStr) -> SecretStr:
    return SecretStr(secret.get_secret_value().strip().strip(_AROUND).strip())


def usable(stored: StoredCredential | NewCredential, credential_id: int = 0) -> Credential:
    """The credential in the form that the client sends.

    Raises:
        ValueError: its secret is no valid header value. The message does not contain it.
    """
    identity = stored.id if isinstance(stored, StoredCredential) else credential_id
    return Credential(identity, stored.label, stored.type, stored.secret, stored.username, stored.expiration_date)
