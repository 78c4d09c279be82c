"""Arguments and options that several commands take."""

from enum import StrEnum
from typing import Annotated

import typer


def _slug(workspace: str) -> str:
    """The name of a workspace, from the name itself or any address within the workspace.

    Raises:
        BadParameter: it is not one.
    """
    from dx_dagster.connections.workspace_names import GivenError, workspace_slug

    try:
        return workspace_slug(workspace)
    except GivenError as error:
        raise typer.BadParameter(str(error)) from None


Workspace = Annotated[
    str,
    typer.Argument(
        metavar="WORKSPACE", callback=_slug, help="First part of its address: https://bitbucket.org/WORKSPACE/"
    ),
]


_LONGEST_LINE = 200


def one_line(text: str | None) -> str | None:
    """A name, label or reason as lists show it, in one line.

    Raises:
        BadParameter: it is none.
    """
    if text is None:
        return None
    chosen = text.strip()
    if not chosen or len(chosen) > _LONGEST_LINE or not chosen.isprintable():
        raise typer.BadParameter(f"must be one line of 1 to {_LONGEST_LINE} characters.")
    return chosen


class ConnectionType(StrEnum):
    bitbucket = "bitbucket"
    bitbucket_pipelines = "bitbucket_pipelines"
    jira_cloud = "jira_cloud"


Type = Annotated[ConnectionType, typer.Option("--type", help="Type of the connection.")]
