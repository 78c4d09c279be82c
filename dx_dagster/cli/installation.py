"""Opens an installation on this machine: database, tables, and Dagster's home."""

import asyncio
import logging
import os
import re
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

from pydantic import SecretStr

from dx_dagster.cli import dagster_yaml
from dx_dagster.cli.errors import CommandError
from dx_dagster.settings import Settings

if TYPE_CHECKING:
    from dagster import DagsterInstance

    from dx_dagster.warehouse.database import Warehouse

Result = TypeVar("Result")

_SAYS_WHY = re.compile(r"[\w.]+: \S")  # the line of a traceback that names the error
OURS = "# Kept up to date by dx-dagster"


@dataclass(frozen=True)
class Installation:
    """An open installation, as dx-dagster's and Dagster's processes need it."""

    home: Path
    database_url: str
    server_version: int
    broker: SecretStr | None = None

    @classmethod
    def open(cls, settings: Settings, *, new: bool = False) -> "Installation":
        """Starts the embedded database if one is used, writes Dagster's home, and upgrades the tables.

        Raises:
            CommandError: there is no installation, unless it may be `new`; or a new one is hardly meant.
        """
        from dx_dagster.cli import running
        from dx_dagster.warehouse import connecting, migrations
        from dx_dagster.warehouse.embedded import database_url

        (running.require_intended if new else running.require_existing)(settings)
        connecting.forget_environment(but_for_address=True)  # Dagster's connections would use them
        url = database_url(settings)
        with migrations.alone(url) as connection:
            installation = cls(settings.home, url, migrations.server_version(connection), settings.celery_broker)
            installation._write_dagster_home(settings)
            migrations.upgrade_over(connection)
            if not migrations.has_dagster(connection):
                installation._create_dagster_tables()
        return installation

    def run(self, work: "Callable[[Warehouse], Awaitable[Result]]", *, connections: int = 4) -> Result:
        """Runs asynchronous work on the warehouse."""
        from dx_dagster.warehouse.database import Warehouse

        async def run() -> Result:
            async with Warehouse(self.database_url, connections=connections) as warehouse:
                return await work(warehouse)

        return asyncio.run(run())

    def let_analysts_in(self) -> None:
        """Makes the role for analysts and sets its password."""
        from dx_dagster.warehouse import analyst_role
        from dx_dagster.warehouse.connecting import connect

        analyst_role.make_role_if_allowed(self.database_url)
        with connect(self.database_url) as connection:
            analyst_role.let_in(connection, analyst_role.password_of(self.home))

    @property
    def dagster_home(self) -> Path:
        return self.home / "dagster"

    @property
    def environment(self) -> dict[str, str]:
        """Variables for the child processes. They contain the database's password, so they are never arguments."""
        return {
            "DX_HOME": str(self.home),
            "DX_DATABASE_URL": self.database_url,
            "DAGSTER_HOME": str(self.dagster_home),
            "DAGSTER_PG_URL": dagster_url(self.database_url, self.server_version),
        } | ({} if self.broker is None else {"DX_CELERY_BROKER": self.broker.get_secret_value()})

    def activate(self) -> None:
        """Sets the variables in this process, so that `DagsterInstance.get()` finds the storage."""
        os.environ.update(self.environment)

    @contextmanager
    def dagster(self) -> Iterator["DagsterInstance"]:
        """Dagster's instance, in this process.

        Dagster's standard error goes to a log meanwhile: it contains SQL whenever the database does not answer. The
        command itself reports errors.
        """
        from dagster import DagsterInstance

        self.activate()
        log, root = self.home / "logs" / "commands.log", logging.getLogger()
        log.parent.mkdir(parents=True, exist_ok=True)
        if log.exists() and log.stat().st_size > Settings.read().log_size / 2:
            log.replace(log.with_name(f"{log.name}.1"))
        handlers = list(root.handlers)
        with log.open("a") as file, redirect_stderr(file):
            try:
                with DagsterInstance.get() as instance:
                    yield instance
            finally:
                root.handlers[:] = handlers  # a handler added meanwhile would write to the closed file

    def _write_dagster_home(self, settings: Settings) -> None:
        self.dagster_home.mkdir(mode=0o700, parents=True, exist_ok=True)
        target = self.dagster_home / "dagster.yaml"
        if not target.exists() or target.read_text().startswith(OURS):
            # Replaced in one step: another process may be reading it.
            draft = target.with_name(f"dagster.yaml.{os.getpid()}")
            draft.write_text(dagster_yaml.text(settings, packaged("dagster.yaml")))
            draft.replace(target)

    def _create_dagster_tables(self) -> None:
        """Creates Dagster's tables. Its UI and daemon would do so concurrently, and one of them might fail.

        Raises:
            CommandError: with Dagster's error.
        """
        command = [sys.executable, "-c", "from dagster import DagsterInstance; DagsterInstance.get()"]
        done = subprocess.run(  # noqa: S603 - a line of our own
            command, env=os.environ | self.environment, capture_output=True, text=True, check=False
        )
        if done.returncode:
            from dx_dagster.bitbucket import sentence

            said = [line for line in done.stderr.splitlines() if _SAYS_WHY.match(line)] or ["it gave no reason"]
            raise CommandError(
                f"Dagster could not create its tables in the schema dagster: {sentence(said[-1])} The user of "
                "DX_DATABASE_URL must own that schema, or be allowed to create tables in it (GRANT ALL ON SCHEMA "
                "dagster TO …)."
            )


def with_warehouse(work: "Callable[[Settings, Warehouse], Awaitable[Result]]", *, new: bool = False) -> Result:
    """Opens the installation that the environment describes, and runs asynchronous work on its warehouse."""
    settings = Settings.read()
    return Installation.open(settings, new=new).run(lambda warehouse: work(settings, warehouse))


def dagster_url(url: str, server_version: int) -> str:
    """The database's address for Dagster, whose tables have their own schema.

    It names the driver: SQLAlchemy 2.1 defaults to psycopg 3, and dagster-postgres ships psycopg2.
    """
    from dx_dagster.warehouse import connecting

    parts = urlsplit(url)
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    others = query.get("options", os.environ.get("PGOPTIONS", ""))  # the one that libpq would take
    query["options"] = f"{others} {connecting.options(server_version, search_path='dagster')}".strip()
    query["client_encoding"] = "utf8"  # PGCLIENTENCODING would come after the options
    return f"postgresql+psycopg2://{parts.netloc}{parts.path}?{urlencode(query, quote_via=quote)}"


def packaged(name: str) -> Path:
    """A file of the top level: in the installed package, or in the checkout."""
    package = Path(__file__).parent.parent
    inside = package / name
    return inside if inside.exists() else package.parent / name
