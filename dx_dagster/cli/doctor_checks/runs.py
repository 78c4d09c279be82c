"""Checks of what starts runs: the daemon, Dagster's configuration, Celery's broker and workers."""

from datetime import UTC, timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from dx_dagster.cli import running
from dx_dagster.cli.confirming import counted
from dx_dagster.cli.doctor_checks.examination import (
    CONNECT_SECONDS,
    Examination,
    Finding,
    State,
    unknown,
    without_password,
)
from dx_dagster.clock import HOST
from dx_dagster.settings import Settings, brokers

if TYPE_CHECKING:
    from dx_dagster.automation.celery_broker import BrokerAnswers

_HEARTBEAT_LASTS = timedelta(minutes=2)
# What imports rely on in Dagster's configuration, and what its absence means.
_RELIED_ON = {
    ("storage", "postgres", "postgres_url", "env"): "Dagster's tables are not in the database of dx-dagster",
    ("concurrency", "runs", "tag_concurrency_limits"): "two runs may import one workspace at once",
    ("run_monitoring", "enabled"): "runs whose process was killed are not noticed",
    ("run_retries", "retry_on_asset_or_op_failure"): "failed imports are started again at once",
}


def check_daemon(examination: Examination) -> list[Finding]:
    from psycopg.errors import UndefinedTable

    from dx_dagster.warehouse.connecting import connect
    from dx_dagster.warehouse.locks import holder_of

    if examination.url is None:
        return [unknown("daemon", "The database does not answer.")]
    holder = holder_of(examination.url, running.DAEMON_LOCK)
    with connect(examination.url, connect_timeout=CONNECT_SECONDS, statement_timeout=CONNECT_SECONDS) as connection:
        try:
            row = connection.execute("SELECT max(timestamp) FROM dagster.daemon_heartbeats").fetchone()
        except UndefinedTable:
            row = None
    last = row[0].replace(tzinfo=UTC) if row and row[0] else None
    is_fresh = last is not None and HOST.now() - last < _HEARTBEAT_LASTS
    if holder:
        if is_fresh:
            return [Finding("daemon", State.GOOD, f"It runs ({holder}).")]
        told = f"It runs ({holder}) and does not report. Its log is {examination.settings.log_folder / 'daemon.log'}."
        return [Finding("daemon", State.BAD, told)]
    if is_fresh and last is not None:
        told = f"One was at work at {last:%H:%M:%S} UTC that dx-dagster did not start, or it has just ended."
        return [Finding("daemon", State.WARNING, f"{told} Use dx-dagster up: it runs only one on a database.")]
    if running.running_in(examination.settings.home):
        told = f"It does not run. Its log is {examination.settings.log_folder / 'daemon.log'}."
        return [Finding("daemon", State.BAD, told)]
    return [Finding("daemon", State.WARNING, "It does not run, so nothing is synced by itself. Start: dx-dagster up")]


def check_dagster(examination: Examination) -> list[Finding]:
    import yaml

    from dx_dagster.cli.installation import OURS, packaged

    path = examination.settings.home / "dagster" / "dagster.yaml"
    wanted = yaml.safe_load(packaged("dagster.yaml").read_text())
    if not path.exists():
        return [Finding("Dagster", State.GOOD, f"{path} does not exist yet. The next command writes it.")]
    text = path.read_text()
    if text.startswith(OURS):
        return [Finding("Dagster", State.GOOD, f"{path} is kept up to date by dx-dagster.")]
    try:
        found = yaml.safe_load(text)
    except yaml.YAMLError as error:
        where = str(getattr(error, "problem_mark", "")).strip()
        return [Finding("Dagster", State.BAD, f"{path} is not YAML: {where or 'it cannot be parsed'}. Correct it.")]
    faults = [
        f"{'.'.join(keys)} differs, so {what}"
        for keys, what in _RELIED_ON.items()
        if _at(found, keys) != _at(wanted, keys)
    ]
    if "run_coordinator" in (found or {}):
        faults.append("run_coordinator is set, so the limits of concurrency may not apply")
    if examination.settings.celery_broker and _at(found, ("run_launcher", "class")) != "WorkerRunLauncher":
        faults.append("run_launcher is not WorkerRunLauncher, so the workers of DX_CELERY_BROKER get no runs")
    if faults:
        told = f"In {path}, your own copy: {'; '.join(faults)}. Compare it with dagster.yaml of dx-dagster."
        return [Finding("Dagster", State.BAD, told)]
    return [Finding("Dagster", State.GOOD, f"{path} is your own copy, with all that imports rely on.")]


def _at(tree: Any, keys: tuple[str, ...]) -> Any:
    for key in keys:
        tree = tree.get(key) if isinstance(tree, dict) else None
    if isinstance(tree, list):  # limits of tags: those that keep two runs off one workspace
        kept = ("dx/workspace", "dagster/partition")
        return [one for one in tree if isinstance(one, dict) and one.get("key") in kept]
    return tree


def check_celery(examination: Examination) -> list[Finding]:
    """Nothing without a broker."""
    settings = examination.settings
    broker = settings.celery_broker
    if broker is None:
        return []
    from dx_dagster.cli.dagster_yaml import require_celery

    require_celery()
    from dx_dagster.automation.celery_broker import BrokerError, ask

    where = " or ".join(without_password(urlsplit(one.get_secret_value())) for one in brokers(broker))
    try:
        answers = ask(broker)
    except BrokerError as error:
        if error.refuses:
            told = f"{where} refuses the user or the password. Correct DX_CELERY_BROKER, for all services alike."
        else:
            told = f"{where} cannot be used, so no run starts: {error}. Start the broker, or correct DX_CELERY_BROKER."
        return [Finding("Celery", State.BAD, told)]
    return [_of_workers(f"{where} answers, with {counted(answers.waiting, 'run')} in its queue.", answers, settings)]


def _of_workers(queue: str, answers: "BrokerAnswers", settings: Settings) -> Finding:
    from dx_dagster.automation.celery_broker import REPLY_SECONDS

    if not answers.places:
        told = (
            f"No worker answered within {REPLY_SECONDS:.0f} s. Runs end as failed three minutes after their launch. "
            "Start workers with the same DX_CELERY_BROKER: dx-dagster worker"
        )
        return Finding("Celery", State.BAD, f"{queue} {told}")
    places, most = sum(answers.places.values()), settings.concurrent_runs
    told = f"{counted(len(answers.places), 'worker')} with {counted(places, 'place')} for runs."
    if places >= most:
        return Finding("Celery", State.GOOD, f"{queue} {told}")
    mend = f"DX_CONCURRENT_RUNS is {most}, and runs without a place end as failed. Start more workers, or lower it."
    return Finding("Celery", State.WARNING, f"{queue} {told} {mend}")
