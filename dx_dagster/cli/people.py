"""`dx-dagster people`: who is who, by what the accounts show and by what somebody says."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from dx_dagster.cli.errors import CommandError
from dx_dagster.cli.installation import with_warehouse
from dx_dagster.cli.json_output import print_json
from dx_dagster.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from dx_dagster.insights.people.people_file import PersonLine
    from dx_dagster.warehouse.database import Transaction, Warehouse

Result = TypeVar("Result")

people = typer.Typer(
    help="Says which accounts are whose, and sets teams, time zones and types of people.", no_args_is_help=True
)

Account = Annotated[
    str,
    typer.Argument(
        metavar="ACCOUNT", help="uuid or Atlassian account id, or a nickname as WORKSPACE/NICKNAME if it is ambiguous."
    ),
]
Person = Annotated[str, typer.Argument(metavar="PERSON", help="E-mail address, or number in dx_users.")]


@people.command("list")
def list_(json_: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False) -> None:
    """Lists all people with their accounts, and why each account is theirs.

    Example: dx-dagster people list --json
    """

    async def work(_: Settings, warehouse: "Warehouse") -> tuple[list[dict[str, Any]], dict[str, str]]:
        from dx_dagster.insights.people import finding
        from dx_dagster.warehouse.imported import member_emails

        async with warehouse.transaction(read_only=True) as transaction:
            return await finding.everybody(transaction), await member_emails.nobody_may_ask(transaction)

    found, refused = with_warehouse(work)
    for workspace, reason in refused.items():
        print(
            f"Bitbucket does not say which members of {workspace} have the addresses of the people file: it {reason}. "
            "Workspace access tokens may ask, and API tokens of the workspace's administrators.",
            file=sys.stderr,
        )
    if json_:
        print_json({"people": found})
        return
    if not found:
        print("No people yet. They come with a sync, or with dx-dagster people import FILE.csv", file=sys.stderr)
    from dx_dagster.cli.consoles import plain

    console = plain()
    for one in found:
        more = [one["type"], one["team"], one["tz"], one["deleted_at"] and f"left {one['deleted_at']:%Y-%m-%d}"]
        known = ", ".join(part for part in more if part)
        console.print(f"{one['id']}  {one['name'] or '-'}  {one['email'] or '-'}  ({known})")
        for account in one["accounts"]:
            name = account["nickname"] or account["name"] or account["source_id"]
            said = ", by hand" if account["by_hand"] else ""
            console.print(
                f"    {account['workspace']}/{name}  ({account['reason']}{said}, {account['linked_at']:%Y-%m-%d})"
            )


@people.command()
def link(account: Account, person: Person) -> None:
    """Makes an account this person's. No sync changes it.

    Example: dx-dagster people link acme/ann ann@acme.example
    """

    async def work(transaction: "Transaction") -> str:
        from dx_dagster.insights.people import by_hand, finding

        named, whose = await finding.account(transaction, account), await finding.person(transaction, person)
        await by_hand.link(transaction, named, whose)
        return f"{named.label} is an account of person {whose.id}, {whose.label}."

    print(_change(work))


@people.command()
def unlink(account: Account) -> None:
    """Makes an account a person of its own. No sync joins it with others again.

    Example: dx-dagster people unlink acme/ann
    """

    async def work(transaction: "Transaction") -> str:
        from dx_dagster.insights.people import by_hand, finding

        named = await finding.account(transaction, account)
        return f"{named.label} is person {await by_hand.unlink(transaction, named)}, alone."

    print(_change(work))


@people.command("import")
def import_(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE.csv", exists=True, dir_okay=False, readable=True, help="CSV file in UTF-8, with commas."
        ),
    ],
) -> None:
    """Imports names, teams, time zones and types of people, and replaces what an earlier file said.

    The columns are email, name, team (Engineering/Platform), time_zone (Europe/Berlin) and type (human, bot or ai_bot).
    Only email must be there. A file with a bad line is not imported at all, and each bad line is named.

    Example: dx-dagster people import people.csv
    """
    from dx_dagster.insights.people import people_file
    from dx_dagster.insights.people.people_file import PeopleFileError

    async def work(transaction: "Transaction") -> str:
        from dx_dagster.insights.people import stating

        done = await stating.state(transaction, lines)
        return (
            f"{_count(done.people, 'person', 'people')}, {done.with_accounts} of them with accounts, in "
            f"{_count(done.teams, 'team', 'teams')} ({done.new_teams} new, {done.dropped_teams} no longer named)."
        )

    try:
        lines: list[PersonLine] = people_file.read(file.read_bytes())
        print(_change(work))
    except PeopleFileError as error:
        raise CommandError(_refusal(file, error)) from None


@people.command()
def export() -> None:
    """Prints everybody with an e-mail address, as `people import` reads it.

    Example: dx-dagster people export > people.csv
    """

    async def work(_: Settings, warehouse: "Warehouse") -> "tuple[list[PersonLine], int]":
        from dx_dagster.insights.people import stating

        async with warehouse.transaction(read_only=True) as transaction:
            return await stating.exported(transaction)

    from dx_dagster.insights.people import people_file

    found, left_out = with_warehouse(work)
    print(people_file.write(found), end="")
    if left_out:
        who = _count(left_out, "person is", "people are")
        print(
            f"{who} left out, without an e-mail address of their own. To see all: dx-dagster people list",
            file=sys.stderr,
        )


@people.command()
def forget(
    person: Person, yes: Annotated[bool, typer.Option("--yes", help="Do not ask whether to go on.")] = False
) -> None:
    """Empties name, e-mail addresses and comments of one person for good. No sync stores them again.

    Pull requests, reviews and commits stay, without the name. The accounts' ids stay, for they belong to those rows.

    Example: dx-dagster people forget ann@acme.example --yes
    """
    if not yes:
        if not sys.stdin.isatty():
            raise CommandError("Forgetting a person cannot be undone. To confirm it without a terminal, add --yes.")
        typer.confirm(f"Forget {person}? It cannot be undone", abort=True, err=True)

    async def work(transaction: "Transaction") -> dict[str, int]:
        from dx_dagster.insights.people import finding, forgetting

        return await forgetting.forget(transaction, await finding.person(transaction, person))

    for table, rows in _change(work).items():
        print(f"{table}: {_count(rows, 'row', 'rows')}")


def _change(work: "Callable[[Transaction], Awaitable[Result]]") -> Result:
    """Runs the work in one transaction; an error takes all of it back."""

    async def whole(_: Settings, warehouse: "Warehouse") -> Result:
        from dx_dagster.insights.people.finding import NotFoundError

        try:
            async with warehouse.transaction() as transaction:
                return await work(transaction)
        except NotFoundError as error:
            raise CommandError(str(error)) from None

    return with_warehouse(whole)


def _refusal(file: Path, error: "Exception") -> str:
    problems = getattr(error, "problems", ())
    if not problems:
        return f"{file}: {error} Nothing was imported."
    bad = _count(len(problems), "bad line", "bad lines")
    return "\n".join((f"{file} has {bad}, and nothing was imported:", *problems))


def _count(number: int, one: str, several: str) -> str:
    return f"{number} {one if number == 1 else several}"
