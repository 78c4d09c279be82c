"""The names of budgets: Bitbucket counts the requests of each access token, and those of API tokens by account."""

_BY_CREDENTIAL = "credential"
_BY_ACCOUNT = "account"


def name_of(kind: str, credential_id: int, username: str | None) -> str:
    """The budget that a credential draws on; all API tokens of one account share one."""
    if kind == "access_token":
        return f"{_BY_CREDENTIAL}:{credential_id}"
    return f"{_BY_ACCOUNT}:{(username or '').lower()}"


def is_of_access_token(name: str) -> bool:
    return name.startswith(f"{_BY_CREDENTIAL}:")
