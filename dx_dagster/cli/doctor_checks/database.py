"""Checks of the database: whether it answers, its tables, and the keys of what is stored in it."""

import stat

from dx_dagster.cli import running
from dx_dagster.cli.doctor_checks.examination import CONNECT_SECONDS, Examination, Finding, State, unknown
from dx_dagster.clock import HOST


def check_database(examination: Examination) -> list[Finding]:
    from dx_dagster.warehouse import connecting, poolers
    from dx_dagster.warehouse.embedded import database_url

    running.require_existing(examination.settings)
    connecting.forget_environment(but_for_address=True)
    url = database_url(examination.settings)
    with connecting.connect(url, connect_timeout=CONNECT_SECONDS, statement_timeout=CONNECT_SECONDS) as connection:
        version = connection.info.parameter_status("server_version")
        before = HOST.now()
        row = connection.execute("SELECT clock_timestamp()").fetchone()
        if row is not None:
            examination.times.append(("database", row[0], before))
        unfit = connecting.why_unfit(connection)
    examination.url = url
    if unfit := unfit or poolers.why_unfit(url):
        return [Finding("database", State.BAD, unfit)]
    return [Finding("database", State.GOOD, f"PostgreSQL {version} answers.")]


def check_tables(examination: Examination) -> list[Finding]:
    from psycopg.errors import UndefinedTable

    from dx_dagster.warehouse import migrations, versions
    from dx_dagster.warehouse.connecting import connect

    if examination.url is None:
        return [unknown("tables", "The database does not answer.")]
    with connect(examination.url, connect_timeout=CONNECT_SECONDS, statement_timeout=CONNECT_SECONDS) as connection:
        try:
            row = connection.execute(versions.STORED).fetchone()
        except UndefinedTable:
            row = None
    if row is None:
        return [Finding("tables", State.BAD, "There are none yet. Run: dx-dagster migrate")]
    if unfit := versions.why_unfit(*row):
        return [Finding("tables", State.BAD, unfit)]
    examination.is_current = True
    if versions.is_ahead(*row):
        return [Finding("tables", State.GOOD, f"Version {row[0]}, of a newer release, which works with this one too.")]
    if faults := migrations.faults(examination.url):
        more = f" {len(faults) - 1} more differences: dx-dagster migrate lists them." if len(faults) > 1 else ""
        return [Finding("tables", State.BAD, faults[0] + more)]
    return [_of_version(row[0])]


def _of_version(version: str) -> Finding:
    from dx_dagster.warehouse import versions

    if waits := versions.what_waits(version):
        return Finding("tables", State.WARNING, f"Version {version}. {waits}")
    return Finding("tables", State.GOOD, f"Version {version}, the newest of this release.")


def check_keys(examination: Examination) -> list[Finding]:
    from dx_dagster.warehouse.connections import keys
    from dx_dagster.warehouse.connections.vault import KEY_FILE, Vault, has_keys

    settings = examination.settings
    path = settings.home / KEY_FILE
    if not has_keys(settings):
        if examination.url is not None and examination.is_current:
            keys.check(examination.url, settings)
        return [Finding("keys", State.GOOD, f"None are needed yet. The first credential makes {path}.")]
    if settings.secret_keys is None and path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        return [Finding("keys", State.BAD, f"Others on this machine can read {path}. Run: chmod 600 {path}")]
    source = Vault.of(settings).source
    if examination.url is None or not examination.is_current:
        return [Finding("keys", State.WARNING, f"{source} has keys. Whether they open stored secrets is not known.")]
    if warning := keys.check(examination.url, settings):
        return [Finding("keys", State.BAD, warning)]
    return [Finding("keys", State.GOOD, f"The keys of {source} open all stored secrets.")]
