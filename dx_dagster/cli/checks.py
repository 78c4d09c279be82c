"""The checks of `dx-dagster doctor`. Each works by itself: the others may have found everything broken."""

import asyncio
import os
import stat
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult, parse_qs, urlsplit

from dx_dagster.cli import running
from dx_dagster.cli.confirming import counted
from dx_dagster.clock import HOST
from dx_dagster.settings import DEFAULT_HOME, Settings, SettingsError, is_home

if TYPE_CHECKING:
    from dx_dagster.automation.celery_broker import BrokerAnswers
    from dx_dagster.connections.health import Health
    from dx_dagster.warehouse.connections.connections import StoredConnection
    from dx_dagster.warehouse.database import Warehouse

_CONNECT_SECONDS = 5
_HTTP_SECONDS = 10.0
_REQUESTS_SECONDS = 30.0
_CLOCKS_APART = timedelta(seconds=60)
_HEARTBEAT_LASTS = timedelta(minutes=2)
_SERVER_ERROR = 500
# What imports rely on in Dagster's configuration, and what its absence means.
_RELIED_ON = {
    ("storage", "postgres", "postgres_url", "env"): "Dagster's tables are not in the database of dx-dagster",
    ("concurrency", "runs", "tag_concurrency_limits"): "two runs may import one workspace at once",
    ("run_monitoring", "enabled"): "runs whose process was killed are not noticed",
    ("run_retries", "retry_on_asset_or_op_failure"): "failed imports are started again at once",
}


class State(StrEnum):
    GOOD = "good"
    WARNING = "warning"
    BAD = "bad"


Found = tuple[State, str]


@dataclass(frozen=True)
class Finding:
    """The result of a check: what it found, and what to do where that is not good."""

    check: str
    state: State
    text: str


@dataclass
class Examination:
    """What the checks work on, and what earlier ones have found.

    Attributes:
        complaints: why settings cannot be used; those have their defaults.
        url: the database's address, once it has answered.
        is_reached: whether the API has answered.
        times: the times that servers gave, each with the host's time of that moment.
    """

    settings: Settings
    ui_port: int
    api_port: int
    complaints: list[str] = field(default_factory=list)
    url: str | None = None
    is_current: bool = False
    is_reached: bool = False
    times: list[tuple[str, datetime, datetime]] = field(default_factory=list)

    @classmethod
    def begin(cls, ui_port: int, api_port: int) -> "Examination":
        settings, complaints = _readable()
        return cls(settings, ui_port, api_port, complaints)

    @property
    def home_origin(self) -> str:
        home = self.settings.home
        if os.environ.get("DX_HOME"):
            return "from DX_HOME"
        if not home.is_absolute():
            return "the current folder no longer exists"
        if home != Path.cwd() / DEFAULT_HOME:
            return "found above the current folder"
        return "in the current folder" if is_home(home) else "the default; it does not exist yet"

    @property
    def database(self) -> str:
        """The database's address without its password."""
        if self.settings.database_url is None:
            return str(self.settings.home / "postgres")
        parts = urlsplit(self.settings.database_url.get_secret_value())
        return _without_password(parts._replace(scheme="postgresql"), parse_qs(parts.query).get("host", [""])[0])

    @property
    def database_origin(self) -> str:
        return "embedded, in the home" if self.settings.database_url is None else "from DX_DATABASE_URL"

    @property
    def is_embedded(self) -> bool:
        return self.settings.database_url is None


def _without_password(parts: SplitResult, other_host: str = "") -> str:
    """The address; `other_host` is the one where it names none."""
    user = f"{parts.username}@" if parts.username else ""
    port = f":{parts.port}" if parts.port else ""
    return f"{parts.scheme}://{user}{parts.hostname or other_host}{port}{parts.path}"


class _Forgetful(Settings):
    """The settings of the environment alone."""

    @classmethod
    def settings_customise_sources(cls, settings_cls: Any, **sources: Any) -> Any:  # type: ignore[override]
        return super().settings_customise_sources(settings_cls, **sources)[:2]


def _readable() -> tuple[Settings, list[str]]:
    """The settings, with the default in place of each that cannot be used, and why."""
    complaints: list[str] = []
    source: type[Settings] = Settings
    instead: dict[str, Any] = {}
    defaults: Mapping[str | None, Any] = {one.alias: one.default for one in Settings.model_fields.values()}
    while True:
        try:
            return source.read(**instead), complaints
        except SettingsError as error:
            complaints.append(str(error))
            name = error.variable
            if name is not None and name in defaults and name not in instead:
                instead[name] = defaults[name]
            elif source is Settings:
                source = _Forgetful
            else:
                return Settings.model_construct(), complaints
        except OSError:  # the current folder no longer exists
            return Settings.model_construct(), complaints


def _settings(examination: Examination) -> list[Finding]:
    if examination.complaints:
        return [Finding("settings", State.BAD, text) for text in examination.complaints]
    changed = ", ".join(examination.settings.changed())
    return [Finding("settings", State.GOOD, f"Not at their defaults: {changed}." if changed else "All are defaults.")]


def _home(examination: Examination) -> list[Finding]:
    home = examination.settings.home
    if not home.exists():
        if not examination.is_embedded:
            return [
                Finding("home", State.GOOD, f"{home} does not exist yet. The first command that needs it makes it.")
            ]
        return [Finding("home", State.BAD, f"{home} does not exist yet.")]
    if not home.is_dir():
        return [Finding("home", State.BAD, f"{home} is not a folder. Set DX_HOME to a folder.")]
    if not os.access(home, os.W_OK | os.X_OK):
        return [
            Finding("home", State.BAD, f"{home} is not writable. Make it writable, or set DX_HOME to a folder that is.")
        ]
    if at_work := running.running_in(home):
        return [Finding("home", State.GOOD, f"{home}, in use by {at_work}.")]
    return [Finding("home", State.GOOD, f"{home}. Neither up nor demo runs on it.")]


def _keys(examination: Examination) -> list[Finding]:
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


def _database(examination: Examination) -> list[Finding]:
    from dx_dagster.warehouse import connecting, poolers
    from dx_dagster.warehouse.embedded import database_url

    running.require_existing(examination.settings)
    connecting.forget_environment(but_for_address=True)
    url = database_url(examination.settings)
    with connecting.connect(url, connect_timeout=_CONNECT_SECONDS, statement_timeout=_CONNECT_SECONDS) as connection:
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


def _tables(examination: Examination) -> list[Finding]:
    from psycopg.errors import UndefinedTable

    from dx_dagster.warehouse import migrations, versions
    from dx_dagster.warehouse.connecting import connect

    if examination.url is None:
        return [_unknown("tables", "The database does not answer.")]
    with connect(examination.url, connect_timeout=_CONNECT_SECONDS, statement_timeout=_CONNECT_SECONDS) as connection:
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

    if waiting := versions.waiting(version):
        told = (
            f"Version {version}. Migrations that wait until no process of an older release is left: "
            f"{', '.join(waiting)}. The job upkeep runs them then, or dx-dagster migrate --after does."
        )
        return Finding("tables", State.WARNING, told)
    return Finding("tables", State.GOOD, f"Version {version}, the newest of this release.")


def _api(examination: Examination) -> list[Finding]:
    import httpx

    from dx_dagster.bitbucket.transport import user_agent

    url = examination.settings.bitbucket_api_url
    host = urlsplit(url).hostname
    before = HOST.now()
    try:
        # Without a credential: any answer shows that the address is right.
        answer = httpx.get(
            f"{url}/user",
            headers={"User-Agent": user_agent(), "Accept": "application/json"},
            timeout=_HTTP_SECONDS,
            trust_env=url.startswith("https:"),
        )
    except httpx.TimeoutException:
        told = f"{host} did not answer within {_HTTP_SECONDS:.0f} s. Check the network, the firewall and HTTPS_PROXY."
        return [Finding("API", State.BAD, told)]
    except httpx.HTTPError as error:
        if "CERTIFICATE" in str(error) or "SSL" in str(error):
            told = f"The certificate of {host} cannot be verified. If a proxy opens TLS connections, set SSL_CERT_FILE."
        else:
            told = f"{host} cannot be reached. Check BITBUCKET_API_URL, the network, the firewall and HTTPS_PROXY."
        return [Finding("API", State.BAD, told)]
    if "date" in answer.headers:
        with suppress(ValueError):
            examination.times.append(("API", parsedate_to_datetime(answer.headers["date"]).astimezone(UTC), before))
    if answer.is_redirect or "html" in answer.headers.get("content-type", ""):
        told = f"{url} answered with a page, not as an API. Check BITBUCKET_API_URL, and whether a proxy answers."
        return [Finding("API", State.BAD, told)]
    if answer.status_code >= _SERVER_ERROR:
        return [Finding("API", State.BAD, f"{url} answered {answer.status_code}. Imports retry; try again later.")]
    examination.is_reached = True
    return [Finding("API", State.GOOD, f"{url} answers.")]


def _clock(examination: Examination) -> list[Finding]:
    if not examination.times:
        return [_unknown("clock", "Neither the database nor the API answers.")]
    found = []
    for server, theirs, ours in examination.times:
        apart = ours - theirs
        if abs(apart) > _CLOCKS_APART:
            how = f"{abs(apart.total_seconds()):,.0f} s {'ahead of' if apart > timedelta() else 'behind'}"
            told = f"This machine's clock is {how} that of the {server}. Synchronize it, for example with NTP."
            found.append(Finding("clock", State.BAD, told))
    servers = " and ".join(server for server, _, _ in examination.times)
    return found or [Finding("clock", State.GOOD, f"Within {_CLOCKS_APART.seconds} s of the clock of the {servers}.")]


def _ports(examination: Examination) -> list[Finding]:
    from dx_dagster.cli.errors import CommandError
    from dx_dagster.cli.ports import LOOPBACK, require_free
    from dx_dagster.cli.services import services

    at_work = running.running_in(examination.settings.home)
    if at_work is not None and at_work.ui_port and at_work.api_port:
        found = []
        for service in services(examination.settings, at_work.ui_port, at_work.api_port):
            if service.health is None:
                continue
            where = f"{service.name} on port {service.health[0]}"
            if service.is_healthy():
                found.append(Finding("ports", State.GOOD, f"{where} is ready."))
            else:
                log = examination.settings.log_folder / f"{service.name}.log"
                found.append(Finding("ports", State.BAD, f"{where} is not ready. Its log is {log}."))
        return found
    found = []
    for port, option in ((examination.ui_port, "--ui-port"), (examination.api_port, "--api-port")):
        try:
            require_free(LOOPBACK, port, option=option)
        except CommandError as error:
            found.append(Finding("ports", State.BAD, str(error).replace("Nothing was started. ", "")))
    free = f"{examination.ui_port} and {examination.api_port} are free for dx-dagster up."
    return found or [Finding("ports", State.GOOD, free)]


def _daemon(examination: Examination) -> list[Finding]:
    from psycopg.errors import UndefinedTable

    from dx_dagster.warehouse.connecting import connect
    from dx_dagster.warehouse.locks import holder_of

    if examination.url is None:
        return [_unknown("daemon", "The database does not answer.")]
    holder = holder_of(examination.url, running.DAEMON_LOCK)
    with connect(examination.url, connect_timeout=_CONNECT_SECONDS, statement_timeout=_CONNECT_SECONDS) as connection:
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


def _dagster(examination: Examination) -> list[Finding]:
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


def _celery(examination: Examination) -> list[Finding]:
    """Nothing without a broker."""
    settings = examination.settings
    broker = settings.celery_broker
    if broker is None:
        return []
    from dx_dagster.cli.dagster_yaml import require_celery

    require_celery()
    from dx_dagster.automation.celery_broker import BrokerError, ask

    where = _without_password(urlsplit(broker.get_secret_value()))
    try:
        answers = ask(broker.get_secret_value())
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


def _at(tree: Any, keys: tuple[str, ...]) -> Any:
    for key in keys:
        tree = tree.get(key) if isinstance(tree, dict) else None
    if isinstance(tree, list):  # limits of tags: those that keep two runs off one workspace
        kept = ("dx/workspace", "dagster/partition")
        return [one for one in tree if isinstance(one, dict) and one.get("key") in kept]
    return tree


def _credentials(examination: Examination) -> list[Finding]:
    return _on_warehouse(examination, "credentials", _of_connections)


def _webhooks(examination: Examination) -> list[Finding]:
    return _on_warehouse(examination, "webhooks", _of_hooks)


def _on_warehouse(
    examination: Examination, name: str, work: "Callable[[Examination, Warehouse], Any]"
) -> list[Finding]:
    from dx_dagster.warehouse.database import Warehouse

    if examination.url is None or not examination.is_current:
        return [_unknown(name, "The database does not answer, or its tables are not current.")]

    async def run(url: str) -> list[Finding]:
        async with Warehouse(url, connections=2) as warehouse, asyncio.timeout(_REQUESTS_SECONDS):
            found: list[Finding] = await work(examination, warehouse)
            return found

    try:
        return asyncio.run(run(examination.url))
    except TimeoutError:
        return [_unknown(name, f"The requests did not end within {_REQUESTS_SECONDS:.0f} s.")]


async def _of_connections(examination: Examination, warehouse: "Warehouse") -> list[Finding]:
    from dx_dagster.warehouse.connections import connections

    every = await connections.all_connections(warehouse)
    if not every:
        return [Finding("credentials", State.WARNING, "No workspace is connected. Run: dx-dagster connect WORKSPACE")]
    found = [(one, await _of_connection(examination, warehouse, one)) for one in every]
    return [
        Finding("credentials", state, f"{connection.workspace}, {connection.type}: {text}")
        for connection, texts in found
        for state, text in texts
    ]


async def _of_connection(
    examination: Examination, warehouse: "Warehouse", connection: "StoredConnection"
) -> list[Found]:
    from dx_dagster.connections.health import health

    workspace = connection.workspace
    if connection.disabled_at:
        return [(State.WARNING, f"disabled. To resume: dx-dagster connections enable {workspace}")]
    found: list[Found] = []
    if connection.last_error:
        found.append((State.BAD, f"the last sync failed: {connection.last_error}"))
    every = await health(examination.settings, warehouse, connection)
    if all(one.verdict in {"disabled", "expired"} for one in every):
        found.append((State.BAD, f"no usable credential. Add one: dx-dagster credentials add {workspace}"))
    refused = await _refused(examination, warehouse, connection)
    return found + [refused.get(one.credential.id) or _of_credential(examination, workspace, one) for one in every]


def _of_credential(examination: Examination, workspace: str, one: "Health") -> Found:
    it = one.credential
    whose = f"credential {it.id} ({it.label})"
    if one.verdict in {"disabled", "expired"}:
        reason = f": {it.disabled_reason}" if it.disabled_at else ""
        return State.WARNING, f"{whose} is {one.verdict} and not used{reason}"
    if one.verdict == "expires soon":
        add = f"dx-dagster credentials add {workspace}"
        return State.WARNING, f"{whose} expires on {it.expiration_date}. Add another: {add}"
    left = "" if one.left is None else f", {one.left:,} of {one.limit:,} requests left"
    if examination.is_reached:
        return State.GOOD, f"{whose} is good{left}."
    if one.verdict != "good":
        return State.BAD, f"{whose} failed with {one.verdict} when it was last verified: {it.reason}"
    return State.GOOD, f"{whose} was good when it was last verified{left}."


async def _refused(
    examination: Examination, warehouse: "Warehouse", connection: "StoredConnection"
) -> Mapping[int, Found]:
    """Usable credentials that Bitbucket or Jira refuses now, by id. The result is not stored."""
    from dx_dagster.connections.actions import target_of
    from dx_dagster.connections.verification import UNAVAILABLE, Verifier
    from dx_dagster.warehouse.connections import credentials
    from dx_dagster.warehouse.connections.vault import Vault, has_keys

    if not examination.is_reached or not has_keys(examination.settings):
        return {}
    verifier = Verifier(examination.settings, warehouse, target_of(examination.settings, connection))
    found: dict[int, Found] = {}
    for one in await credentials.all_of(warehouse, Vault.of(examination.settings), connection.id):
        failure = (await verifier.verify(one, one.id)).failure
        if failure is not None:
            state = State.WARNING if failure.code == UNAVAILABLE else State.BAD
            found[one.id] = (state, f"credential {one.id} ({one.label}): {failure.code}: {failure.sentence}")
    return found


async def _of_hooks(examination: Examination, warehouse: "Warehouse") -> list[Finding]:
    from dx_dagster.warehouse.connections import connections
    from dx_dagster.warehouse.webhooks import inbox

    found: list[Finding] = []
    for connection in await connections.all_connections(warehouse):
        if connection.type != "bitbucket" or connection.disabled_at:
            continue
        found += [Finding("webhooks", *one) for one in await _of_hook(examination, warehouse, connection)]
        if aside := await inbox.set_aside(warehouse, connection.workspace):
            name = connection.workspace
            told = f"{name}: {len(aside)} deliveries were set aside. See dx-dagster webhooks status {name}"
            found.append(Finding("webhooks", State.BAD, told))
    return found or [Finding("webhooks", State.GOOD, "None: no workspace is connected.")]


async def _of_hook(examination: Examination, warehouse: "Warehouse", connection: "StoredConnection") -> list[Found]:
    """What is found of the workspace's webhook."""
    from dx_dagster.warehouse.webhooks import secrets
    from dx_dagster.webhooks import address

    settings, name = examination.settings, connection.workspace
    made = await secrets.hooks(warehouse, connection.id)
    if settings.public_url is None and not made:
        return [(State.GOOD, f"{name}: none installed, so changes arrive with syncs. DX_PUBLIC_URL is not set.")]
    try:
        url = address.receiver(settings) if settings.public_url else None
    except SettingsError as error:
        return [(State.BAD, str(error))]
    if not examination.is_reached:
        return [(State.WARNING, f"{name}: not checked, since the API does not answer.")]
    return await _at_bitbucket(examination, warehouse, connection, url, installed=bool(made))


async def _at_bitbucket(
    examination: Examination,
    warehouse: "Warehouse",
    connection: "StoredConnection",
    url: str | None,
    *,
    installed: bool,
) -> list[Found]:
    from dx_dagster.bitbucket import BitbucketError
    from dx_dagster.cli.progress import Lines
    from dx_dagster.importer.session import NotConnectedError, open_client, open_pool
    from dx_dagster.webhooks import hooks

    name = connection.workspace
    try:
        pool = await open_pool(examination.settings, warehouse, Lines(), connection)
        async with open_client(examination.settings, warehouse, pool, connection) as client:
            [(_, found, _)] = await hooks.compare_all(client, warehouse, connection, url, repositories=False)
    except hooks.HooksRefusedError as error:
        return [(State.WARNING, f"{name}: {error}")]
    except (BitbucketError, NotConnectedError) as error:
        return [(State.WARNING, f"{name}: not checked: {error}")]
    install = f"dx-dagster webhooks install {name}"
    if not found and installed:
        return [(State.WARNING, f"{name}: not on the workspace. See dx-dagster webhooks status {name} --repositories")]
    if not found:
        return [(State.WARNING, f"{name}: none installed. To install it: {install}")]
    return [
        (State.BAD, f"{name}: {'; '.join(one.wrong)}. To repair it: {install}")
        if one.wrong
        else (State.GOOD, f"{name}: installed, and delivers to {one.url}.")
        for one in found
    ]


def _unknown(name: str, why: str) -> Finding:
    return Finding(name, State.WARNING, f"Not checked. {why}")


CHECKS: Mapping[str, Callable[[Examination], list[Finding]]] = {
    "settings": _settings,
    "home": _home,
    "database": _database,
    "tables": _tables,
    "keys": _keys,
    "API": _api,
    "clock": _clock,
    "ports": _ports,
    "daemon": _daemon,
    "Dagster": _dagster,
    "Celery": _celery,
    "credentials": _credentials,
    "webhooks": _webhooks,
}
