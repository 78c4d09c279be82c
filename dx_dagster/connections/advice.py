"""Hints for a failed verification: the usual cause and its remedy."""

from collections.abc import Sequence
from urllib.parse import urlsplit

from pydantic import SecretStr

from dx_dagster.bitbucket import BitbucketError, Credential, RateLimited, Unavailable, jira, sentence
from dx_dagster.warehouse.connections.connections import ConnectionType
from dx_dagster.warehouse.connections.credentials import CredentialType

# How the client words a request that got no answer.
_NO_ANSWER = (" failed: ", " was not answered in full within ")
# How Atlassian's secrets begin.
_API_TOKEN, _ACCESS_TOKEN, _APP_PASSWORD = "ATATT", "ATCTT", "ATBB"

_SCOPES: dict[ConnectionType, tuple[str, str]] = {
    "bitbucket": (
        "account, pipeline, pullrequest and repository",
        "read:repository:bitbucket, read:pullrequest:bitbucket, read:pipeline:bitbucket and read:workspace:bitbucket",
    ),
    "bitbucket_pipelines": ("pipeline and repository", "read:repository:bitbucket and read:pipeline:bitbucket"),
    "jira_cloud": ("", jira.SCOPE),
}
JIRA_ACCESS = (
    "A Jira administrator gives the account access to Jira, and the permission Browse users and groups under System, "
    "Global permissions."
)


def of_form(secret: SecretStr) -> str:
    """For a secret that is no valid header value."""
    first = secret.get_secret_value().partition(" ")[0].lower()
    if first in {"bearer", "basic", "authorization:"}:
        return "Give the token alone, without the word before it."
    return "Copy it again: it is one word."


def of_refusal(service: str, credential: Credential) -> str:
    """For a 401."""
    secret = credential.secret.get_secret_value()
    if service == "Jira":
        return (
            "Check that the e-mail address is that of the token's Atlassian account, and that the token is neither "
            f"revoked nor expired; a token with scopes needs {jira.SCOPE}."
        )
    if secret.startswith(_APP_PASSWORD):
        return (
            "It looks like an app password; Bitbucket removed those on 2026-07-28. Create a workspace access token, or "
            "an Atlassian API token with scopes."
        )
    return _of_access_token(secret) if credential.kind == "access_token" else _of_api_token(secret, credential)


def _of_access_token(secret: str) -> str:
    if secret.startswith(_API_TOKEN):
        return "It looks like an Atlassian API token."
    return "It may be revoked or expired, or be an Atlassian API token, which needs an e-mail address."


def _of_api_token(secret: str, credential: Credential) -> str:
    if secret.startswith(_ACCESS_TOKEN):
        return "It looks like a workspace access token."
    if "@" not in (credential.username or ""):
        return "The user name must be the e-mail address of the Atlassian account, not the name in Bitbucket."
    return (
        "Check that the e-mail address is that of the token's Atlassian account, and that the token was made with "
        "scopes and has not expired (they last a year at most)."
    )


def looks_like(secret: SecretStr) -> CredentialType | None:
    """The kind of credential that a secret's first characters tell."""
    kinds: dict[str, CredentialType] = {_API_TOKEN: "api_token", _ACCESS_TOKEN: "access_token"}
    return kinds.get(secret.get_secret_value()[: len(_API_TOKEN)])


def other_kind(service: str, credential: Credential) -> CredentialType | None:
    """The kind that the secret looks like, where it was given as the other kind."""
    found = looks_like(credential.secret) if service != "Jira" else None
    return None if found == credential.kind else found


def of_scopes(kind: ConnectionType, credential: Credential) -> str:
    """For a 403 that names scopes; a token's scopes cannot be changed."""
    access, api = _SCOPES[kind]
    return f"Create a new token with the scopes {access if credential.kind == 'access_token' else api}."


def of_absence(workspace: str, credential: Credential, seen: Sequence[str]) -> str:
    """For a workspace that does not exist, is not accessible, or seems empty."""
    others = [slug for slug in seen if slug != workspace]
    if others:
        return f"This credential sees {'workspaces' if len(others) > 1 else 'workspace'} {', '.join(others)}."
    hint = "The name of a workspace is the first part of its address: https://bitbucket.org/WORKSPACE/."
    if credential.kind == "access_token":
        hint += " An access token opens only the workspace, project or repository it was made in."
    return hint


def of_silence(service: str, host: str, error: BitbucketError) -> tuple[str, str]:
    """Reason and hint for an error that says nothing about the credential."""
    words = str(error)
    if isinstance(error, RateLimited):
        return (
            f"{service} limits the rate of this credential at the moment, so it could not be verified.",
            "Its hourly rate limit is used up: try again later.",
        )
    if "CERTIFICATE" in words or "SSL" in words:
        return (
            f"The certificate of {host} cannot be verified, so nothing was sent.",
            "If a proxy intercepts TLS connections, set SSL_CERT_FILE to a file with its root certificate.",
        )
    if "Timeout" in words or "within" in words:
        return (f"{host} did not answer in time.", "Check the network, the firewall and HTTPS_PROXY, then try again.")
    if "not JSON" in words:
        return (
            f"{host} answered with a page that is not an answer of {service}'s API.",
            "Check the address, and whether a proxy or a sign-in page intercepts the request.",
        )
    if error.status is None:
        return (f"{host} cannot be reached.", "Check the address, the network, the firewall and HTTPS_PROXY.")
    return (f"{service} answered {error.status}, so the credential could not be verified.", "Try again in a while.")


def of_error(base_url: str, error: BitbucketError) -> str:
    """What is wrong, and how to mend it, for an error of a request to `base_url`."""
    words = str(error)
    if error.code != Unavailable.code or not any(sign in words for sign in _NO_ANSWER):
        return words
    reason, hint = of_silence("Bitbucket", urlsplit(base_url).hostname or base_url, error)
    return f"{reason} {hint} {sentence(words)}"
