"""`dx-dagster doctor`: which installation the commands work on, and what is wrong with it."""

import os
import sys
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated

import typer

from dx_dagster.cli.json_output import print_json
from dx_dagster.cli.ports import Port

if TYPE_CHECKING:
    from collections.abc import Callable

    from dx_dagster.cli.doctor_checks.examination import Finding

_STYLES = {"good": "green", "warning": "yellow", "bad": "bold red"}
_SECONDS = 40.0  # for one check; the embedded database may take a while to start


def doctor(
    ui_port: Annotated[int, Port] = 3000,
    api_port: Annotated[int, Port] = 8000,
    json_: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Shows which installation the commands work on, and checks it. The exit status is 1 when a check finds a fault.

    It checks settings, home, keys, database, tables, API address, clock, ports, daemon, Dagster's configuration,
    Celery's broker and workers, credentials and webhooks. It creates and changes nothing. For each credential it sends
    a few requests.

    Example: dx-dagster doctor --json
    """
    from dx_dagster.cli.doctor_checks import CHECKS
    from dx_dagster.cli.doctor_checks.examination import Examination, State

    examination = Examination.begin(ui_port, api_port)
    if not json_:
        print(f"Home      {examination.settings.home} ({examination.home_origin})")
        print(f"Database  {examination.database} ({examination.database_origin})\n", flush=True)
    findings: list[Finding] = []
    for name, check in CHECKS.items():
        found = _within(_SECONDS, name, lambda check=check: check(examination))  # type: ignore[misc]
        findings += found
        if not json_:
            _print(found)
    is_bad = any(one.state is State.BAD for one in findings)
    if json_:
        print_json(
            {
                "ok": not is_bad,
                "home": str(examination.settings.home),
                "home_origin": examination.home_origin,
                "database": examination.database,
                "database_origin": examination.database_origin,
                "checks": [{"name": one.check, "state": one.state, "message": one.text} for one in findings],
            }
        )
    sys.stdout.flush()
    if is_bad:
        raise typer.Exit(1)


def _within(seconds: float, name: str, check: "Callable[[], list[Finding]]") -> "list[Finding]":
    """The check's findings; one that fails or takes too long is a finding itself."""
    from dx_dagster.cli.doctor_checks.examination import Finding, State

    findings: list[Finding] = []

    def work() -> None:
        try:
            findings.extend(check())
        except Exception as error:  # noqa: BLE001 - whatever is broken, the other checks are made
            findings.append(Finding(name, State.BAD, _told(error)))

    thread = threading.Thread(target=work, name=f"checks the {name}", daemon=True)
    thread.start()
    thread.join(seconds)
    if thread.is_alive():
        return [Finding(name, State.BAD, f"The check did not end within {seconds:.0f} s.")]
    return findings


def _told(error: Exception) -> str:
    from dx_dagster.cli.messages import message
    from dx_dagster.settings import SettingsError

    with suppress(SettingsError):  # which has a line of its own
        if told := message(error):
            return told
    if isinstance(error, OSError):
        return f"{error.strerror}: {error.filename}"
    return f"The check failed with {type(error).__name__}."  # its text might contain a secret


def _print(findings: "list[Finding]") -> None:
    from rich.table import Table
    from rich.text import Text

    from dx_dagster.cli.consoles import plain

    console = plain()
    if not console.is_terminal or os.environ.get("TERM") == "dumb":
        for one in findings:
            print(f"{one.check:<12}{one.state:<9}{one.text}", flush=True)
        return
    table = Table.grid(padding=(0, 1))
    table.add_column(width=11, no_wrap=True)
    table.add_column(width=8, no_wrap=True)
    table.add_column(overflow="fold")
    for one in findings:
        table.add_row(one.check, Text(one.state, _STYLES[one.state]), one.text)
    console.print(table)
