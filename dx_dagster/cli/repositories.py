"""`dx-dagster repositories`: which repositories of a workspace are imported."""

from typing import TYPE_CHECKING, Annotated

import typer

from dx_dagster.cli.arguments import Workspace
from dx_dagster.cli.connect import stored_connection
from dx_dagster.cli.installation import with_warehouse
from dx_dagster.cli.json_output import print_json
from dx_dagster.settings import Settings

if TYPE_CHECKING:
    from dx_dagster.warehouse.connections.chosen_repositories import Choice, Choosable
    from dx_dagster.warehouse.connections.connections import StoredConnection
    from dx_dagster.warehouse.database import Warehouse

repositories = typer.Typer(help="Says which repositories of a workspace are imported.", no_args_is_help=True)


def _patterns(given: list[str]) -> list[str]:
    """The patterns as they are stored.

    Raises:
        BadParameter: one is none.
    """
    from dx_dagster.warehouse.connections.chosen_repositories import PatternError, pattern

    try:
        return [pattern(one) for one in given]
    except PatternError as error:
        raise typer.BadParameter(str(error)) from None


_HELP = "Shell pattern over names of repositories, such as web-*, or project:KEY. Quote it."
Patterns = Annotated[list[str], typer.Argument(metavar="PATTERN...", callback=_patterns, help=_HELP)]
Filters = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[PATTERN...]",
        callback=lambda given: _patterns(given or []),
        help="Show only what one of them matches.",
    ),
]


@repositories.command("list")
def list_(
    workspace: Workspace,
    patterns: Filters = None,
    json_: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Lists the repositories of a workspace, or those that a pattern matches, and says which are imported and why.

    Example: dx-dagster repositories list acme
    """
    from dx_dagster.warehouse.connections.chosen_repositories import Choice, matches

    async def work(_: Settings, warehouse: "Warehouse") -> "tuple[str, Choice | None, list[Choosable]]":
        return await _read(warehouse, await stored_connection(warehouse, workspace))

    name, chosen, known = with_warehouse(work)
    shown = [one for one in known if not patterns or any(matches(text, one.slug, one.project) for text in patterns)]
    if json_:
        said = (chosen or Choice()).shown()
        found = [
            {"slug": one.slug, "project": one.project, "imported": imported, "reason": reason}
            for one in shown
            for imported, reason in [_standing(chosen, one)]
        ]
        print_json({"workspace": name, **said, "repositories": found})
        return
    print(_summary(name, chosen, known))
    for rule in chosen.rules if chosen else ():
        print(f"  {'include' if rule.include else 'exclude'} {rule.pattern}")
    for one in shown:
        imported, reason = _standing(chosen, one)
        state = "imported" if imported else f"not imported: {reason}"
        print(f"{one.slug}  {one.project or '-'}  ({state})")


@repositories.command()
def include(workspace: Workspace, patterns: Patterns) -> None:
    """Imports what a pattern matches, from the next sync on.

    As the first pattern of a workspace, it leaves out everything else. The pattern * imports everything again. Of
    patterns that match a repository, the last one given counts.

    Example: dx-dagster repositories include acme "web-*" project:CORE
    """
    _change(workspace, patterns, include=True)


@repositories.command()
def exclude(workspace: Workspace, patterns: Patterns) -> None:
    """Leaves out what a pattern matches, from the next sync on. Rows that are stored stay.

    Of patterns that match a repository, the last one given counts.

    Example: dx-dagster repositories exclude acme "legacy-*"
    """
    _change(workspace, patterns, include=False)


def _change(workspace: str, patterns: list[str], *, include: bool) -> None:
    from dx_dagster.warehouse.connections import chosen_repositories

    async def work(_: Settings, warehouse: "Warehouse") -> "tuple[str, Choice | None, list[Choosable]]":
        connection = await stored_connection(warehouse, workspace)
        async with warehouse.transaction() as transaction:
            await chosen_repositories.change(transaction, connection.id, patterns, include=include)
        return await _read(warehouse, await stored_connection(warehouse, workspace))

    name, chosen, known = with_warehouse(work)
    for text in patterns:
        if known and not any(chosen_repositories.matches(text, one.slug, one.project) for one in known):
            print(f"{text} matches no repository that is known so far.")
    print(_summary(name, chosen, known))


async def _read(warehouse: "Warehouse", connection: "StoredConnection") -> "tuple[str, Choice | None, list[Choosable]]":
    """The workspace's name, what was chosen, and its repositories."""
    from dx_dagster.warehouse.connections.chosen_repositories import Choice, stored

    async with warehouse.transaction(read_only=True) as transaction:
        known = await stored(transaction, connection.workspace)
    return connection.workspace, Choice.of(connection.settings), known


def _standing(chosen: "Choice | None", one: "Choosable") -> tuple[bool, str | None]:
    """Whether the next sync imports the repository, and why not."""
    if chosen is None:
        imported, reason = one.allowlisted, "allowlisted is false"
    else:
        rule = chosen.deciding(one.slug, one.project)
        imported = chosen.imports(one.slug, one.project)
        reason = f"excluded by {rule.pattern}" if rule else "no pattern includes it"
    if imported and one.refusal is not None:
        return False, one.refusal
    return imported, None if imported else reason


def _summary(name: str, chosen: "Choice | None", known: "list[Choosable]") -> str:
    if not known:
        return f"Workspace {name}: no repository is known before the first sync."
    imported = sum(one.allowlisted if chosen is None else chosen.imports(one.slug, one.project) for one in known)
    return f"Workspace {name}: the next sync imports {imported} of {len(known)} repositories."
