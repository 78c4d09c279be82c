"""A later release takes away what this one needs, once no process of this one is left."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest

import dx_dagster
from dx_dagster.warehouse import database as warehouse_database
from dx_dagster.warehouse import sync_steps, versions
from dx_dagster.warehouse.connecting import APPLICATION
from dx_dagster.warehouse.database import Warehouse, WarehouseError
from dx_dagster_tests.conftest import wait_until

PACKAGE = Path(dx_dagster.__file__).parent
NUMBER = int(versions.known()[-1])
BEFORE, AFTER = (f"{NUMBER + further:04}" for further in (1, 2))
SCRIPT = """
from alembic import op
revision, down_revision, branch_labels, depends_on = "{version}", "{follows}", None, None
def upgrade() -> None:
    for statement in {statements}:
        op.execute(statement)
"""
ADDS = ["ALTER TABLE sync_steps ADD COLUMN counted_in text"]
TAKES_AWAY = [
    "ALTER TABLE sync_steps DROP COLUMN counted",
    "ALTER TABLE budgets ALTER COLUMN request_limit SET NOT NULL",
    "CREATE UNIQUE INDEX uq_budgets_spent ON budgets (spent)",
]
# What the later release declares, in place of what this one does.
DECLARES = (
    ("syncs.py", '    text("counted", "What the items are, such as repositories"),\n', ""),
    ("budgets.py", 'null until then", Integer)', 'null until then", Integer, nullable=False)'),
    ("budgets.py", "import Column", "import Column, Index"),
    (
        "budgets.py",
        '    comment="Requests that each',
        '    Index("uq_budgets_spent", "spent", unique=True),\n    comment="',
    ),
)
DOCTOR_AND_UPKEEP = """
import warnings
warnings.simplefilter("ignore")
import dagster as dg
from dx_dagster.cli.doctor_checks import CHECKS
from dx_dagster.cli.doctor_checks.examination import Examination
from dx_dagster.definitions import defs
examination = Examination.begin(1, 2)
for check in ("database", "tables"):
    print(*CHECKS[check](examination))
assert defs.resolve_job_def("upkeep").execute_in_process(instance=dg.DagsterInstance.ephemeral()).success
"""
STATE = """
    SELECT version_num, works_from, works_from_of,
        (SELECT count(*) FROM pg_attribute WHERE attrelid = 'sync_steps'::regclass AND attname = 'counted'),
        (SELECT attnotnull FROM pg_attribute WHERE attrelid = 'budgets'::regclass AND attname = 'request_limit')
    FROM dx_schema_version"""
CUT_OFF = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = %s"
WAITS = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'budgets'::regclass"
STEP = sync_steps.StepKey("run", "comments", "acme")
COUNTED = sync_steps.Count(1, 2, "repositories", 3)


@dataclass
class LaterRelease:
    """A copy of the package with two more migrations, the second of which waits."""

    folder: Path
    environment: Mapping[str, str]

    @classmethod
    def make(cls, folder: Path, environment: Mapping[str, str]) -> "LaterRelease":
        shutil.copytree(PACKAGE, folder / PACKAGE.name)
        warehouse = folder / PACKAGE.name / "warehouse"
        for name, old, new in DECLARES:
            declaration = (warehouse / "schema" / name).read_text()
            assert declaration.count(old) == 1
            (warehouse / "schema" / name).write_text(declaration.replace(old, new))
        for name, version, follows, statements in (
            ("counted_in", BEFORE, versions.known()[-1], ADDS),
            ("after_counted", AFTER, BEFORE, TAKES_AWAY),
        ):
            script = SCRIPT.format(version=version, follows=follows, statements=statements)
            (warehouse / "migrations" / "versions" / f"{version}_{name}.py").write_text(script)
        return cls(folder, environment)

    def start(self, arguments: Sequence[str]) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, *arguments],
            cwd=self.folder,
            env={**self.environment, "PYTHONPATH": str(self.folder)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *arguments: str) -> tuple[int | None, str]:
        """The exit status, and what was printed."""
        process = self.start(arguments)
        output, errors = process.communicate(timeout=120)
        return process.returncode, output + errors

    def migrate(self, *options: str) -> tuple[int | None, str]:
        return self.run("-m", "dx_dagster.cli", "migrate", *options)


@pytest.mark.anyio
async def test_what_the_release_before_needs_goes_once_no_process_of_it_is_left(environment, tmp_path, monkeypatch):
    monkeypatch.setattr(warehouse_database, "CONNECT_SECONDS", 1.0)
    later, url = LaterRelease.make(tmp_path, environment), environment["DX_DATABASE_URL"]
    with psycopg.connect(url, autocommit=True) as database:

        def state() -> list[tuple[object, ...]]:
            return database.execute(STATE).fetchall()

        async with Warehouse(url) as ours:
            status, said = later.migrate()
            assert (status, "dx-dagster migrate --after" in said) == (0, True), said
            both = [(BEFORE, versions.WORKS_FROM, BEFORE, 1, False)]
            assert state() == both
            await sync_steps.begin(ours, STEP)
            await sync_steps.count(ours, STEP, COUNTED)
            status, said = later.migrate("--after")
            assert (status, "A process of an older release still works" in said) == (1, True), said
            assert state() == both

        with psycopg.connect(url) as reader:
            reader.execute("SELECT FROM budgets")
            killed = later.start(["-m", "dx_dagster.cli", "migrate", "--after"])
            assert wait_until(lambda: database.execute(WAITS).fetchall() == [(1,)])
            os.kill(killed.pid, signal.SIGKILL)
            killed.communicate()
        assert state() == both
        async with Warehouse(url) as ours:
            await sync_steps.count(ours, STEP, COUNTED)
            database.execute(CUT_OFF, [APPLICATION])  # as by a restart of the server
            status, said = later.run("-c", DOCTOR_AND_UPKEEP)
            assert status == 0, said
            for _ in range(2):  # at the first time, it learns that its connection is closed
                with pytest.raises(WarehouseError) as refused:
                    await sync_steps.count(ours, STEP, COUNTED)
            assert "newer release" in str(refused.value)
        assert f"Version {BEFORE}. Migrations that wait until no process of an older release is left: {AFTER}. " in said
        assert state() == [(AFTER, AFTER, AFTER, 0, True)]
        with pytest.raises(WarehouseError, match=f"newer release.* version {AFTER}"):
            async with Warehouse(url):
                pass
        assert later.migrate("--after") == (0, "The tables are at the latest version.\n")
