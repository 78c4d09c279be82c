"""The command `dx-dagster`: registers its commands, and turns their errors into messages.

Commands import Dagster, polars and SQLAlchemy when they run, so that `dx-dagster --help` is fast.
"""

import io
import logging
import os
import signal
import sys
import warnings
from pathlib import Path
from types import FrameType
from typing import Annotated, NoReturn

import typer

from dx_dagster.cli.api_keys import api_keys
from dx_dagster.cli.backup import backup, restore
from dx_dagster.cli.connect import connect, verify
from dx_dagster.cli.connections import connections
from dx_dagster.cli.credentials import credentials
from dx_dagster.cli.daemon import daemon
from dx_dagster.cli.demo import demo
from dx_dagster.cli.doctor import doctor
from dx_dagster.cli.env import env
from dx_dagster.cli.messages import message
from dx_dagster.cli.migrate import migrate
from dx_dagster.cli.people import people
from dx_dagster.cli.repositories import repositories
from dx_dagster.cli.serve import serve
from dx_dagster.cli.status import status
from dx_dagster.cli.sync import sync
from dx_dagster.cli.ui import ui
from dx_dagster.cli.up import up
from dx_dagster.cli.webhooks import webhooks
from dx_dagster.cli.worker import worker


def _print_version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        print(f"dx-dagster {version('dx-dagster')}")
        raise typer.Exit


app = typer.Typer(
    name="dx-dagster",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_show_locals=False,  # locals hold secrets
)


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Bitbucket Cloud in PostgreSQL, correct to the row, as Dagster assets."""


for command in (demo, up, doctor, connect, verify, sync, status, serve, migrate, backup, restore, env):
    app.command()(command)
for service in (ui, daemon, worker):
    app.command(hidden=True)(service)  # `up` and docs/deployment.md start it
app.add_typer(connections, name="connections")
app.add_typer(credentials, name="credentials")
app.add_typer(webhooks, name="webhooks")
app.add_typer(repositories, name="repositories")
app.add_typer(people, name="people")
app.add_typer(api_keys, name="api-keys")

_INTERRUPTED = 130  # what Typer makes of Ctrl-C, without a word


def main() -> None:
    """Runs the command that the arguments name."""
    _make_printable()
    # Dagster warns of a beta parameter that it passes itself.
    warnings.filterwarnings("ignore", message=".*is currently in beta", module="dagster")
    # An interrupted statement closes its connection; that needs no log line.
    logging.getLogger("psycopg.pool").setLevel(logging.ERROR)
    signal.signal(signal.SIGTERM, _interrupt)  # so that a command cleans up as after Ctrl-C
    try:
        app()
    except SystemExit as ended:
        if ended.code != _INTERRUPTED:
            raise
        _say_interrupted()
    except KeyboardInterrupt:
        _say_interrupted()
    except Exception as error:
        told = message(error)
        if told is None:
            raise
        _complain(told)
        sys.exit(1)


def _complain(told: str) -> None:
    json_logs = sys.modules.get("dx_dagster.telemetry.json_logs")  # a command that logs in JSON has loaded it
    if json_logs is not None and json_logs.are_set_up():
        json_logs.complain(told)
    else:
        print(told, file=sys.stderr)


def _make_printable() -> None:
    """Lets every name be printed: in a terminal without Unicode with question marks, with closed output nowhere."""
    if sys.stdout is None:
        sys.stdout = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 - until the process ends
    if sys.stderr is None:
        sys.stderr = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 - until the process ends
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def _say_interrupted() -> NoReturn:
    print("Interrupted. Fetched data is stored; run the command again to continue.", file=sys.stderr)
    sys.exit(1)


def _interrupt(_signal: int, _frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt
