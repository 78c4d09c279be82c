"""Bitbucket Cloud in PostgreSQL, correct to the row, as Dagster assets."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dx_dagster.component import BitbucketWorkspaces

__all__ = ["BitbucketWorkspaces"]


def __getattr__(name: str) -> Any:
    """Loads the component when Dagster asks for it: commands load no more than they need."""
    if name != "BitbucketWorkspaces":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from dx_dagster.component import BitbucketWorkspaces  # noqa: PLC0415

    return BitbucketWorkspaces


def __dir__() -> list[str]:
    return [*globals(), *__all__]  # `dg list components` looks here
