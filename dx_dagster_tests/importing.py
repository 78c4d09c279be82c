"""An import in the tests' own process, step by step as the assets do it: for what is about Bitbucket's answers and our
rows. What is about commands and Dagster's runs goes through the command line.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Any

import psycopg
from cryptography.fernet import Fernet
from psycopg.rows import dict_row
from pydantic import SecretStr

from dx_dagster.connections.actions import new_credential
from dx_dagster.importer.activity.step import import_activity
from dx_dagster.importer.comments import import_comments
from dx_dagster.importer.commits.step import import_commits
from dx_dagster.importer.deployments import import_deployments
from dx_dagster.importer.members import import_people
from dx_dagster.importer.pipelines import import_pipelines
from dx_dagster.importer.pull_request_sizes import import_sizes
from dx_dagster.importer.pull_requests import import_pull_requests
from dx_dagster.importer.report import Skipped
from dx_dagster.importer.repositories import import_repositories
from dx_dagster.importer.session import connection_in_service, open_client, open_pool
from dx_dagster.importer.workspace import Listener, Workspace, open_workspace
from dx_dagster.insights import building
from dx_dagster.insights.building import Build, Built
from dx_dagster.insights.people.resolving import resolve
from dx_dagster.insights.unified import BUILDS
from dx_dagster.sandbox import Sandbox, truth
from dx_dagster.sandbox.pull_requests import PullRequest
from dx_dagster.sandbox.unified_truth import unified_truth
from dx_dagster.sandbox.unified_truth_pipelines import unified_truth_of_pipelines
from dx_dagster.sandbox.world import World
from dx_dagster.settings import Settings
from dx_dagster.warehouse.connections import connections, credentials
from dx_dagster.warehouse.connections.vault import Vault
from dx_dagster.warehouse.database import Warehouse
from dx_dagster.warehouse.imported import sessions
from dx_dagster_tests.comparing import differences

KEYS = Fernet.generate_key().decode()


@dataclass
class Imported:
    """The result of an import; `written` are rows."""

    requests: int = 0
    written: int = 0
    skipped: list[Skipped] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass
class Heard:
    """A listener that remembers warnings."""

    warnings: list[str] = field(default_factory=list)
    on_progress: Callable[[int], None] = lambda _: None

    def progress(self, step: str, done: int, total: int, requests: int, counted: str) -> None:
        del step, done, total, counted
        self.on_progress(requests)

    def warning(self, message: str) -> None:
        self.warnings.append(message)

    def about(self, words: str) -> list[str]:
        return [message for message in self.warnings if words in message]


async def import_all(
    settings: Settings, warehouse: Warehouse, listener: Listener, slug: str = "acme", **how: Any
) -> Imported:
    """Runs every step once; `how` goes to `open_workspace`."""
    done = Imported()
    before = warehouse.written_so_far()
    connection = await connection_in_service(warehouse, slug)
    pool = await open_pool(settings, warehouse, listener, connection)
    steps = (
        *(import_repositories, partial(import_people, settings), import_pull_requests, import_activity),
        *(import_comments, import_commits, import_pipelines, partial(import_deployments, settings)),
        partial(import_sizes, settings),
    )
    async with open_client(settings, warehouse, pool, connection) as client:
        for step in steps:
            report = await step(await open_workspace(slug, client, warehouse, listener, **how))
            done.skipped += report.skipped
            done.notes += report.notes
        done.requests = client.requests
    done.written = (warehouse.written_so_far() - before).total()
    return done


def open_into_release(world: World, count: int) -> list[PullRequest]:
    """Pull requests of the first repository into a branch that lacks the default one's last two commits."""
    repository = world.open_repositories[0]
    head = repository.head
    repository.graph.branches["release/0.x"] = head.parents[0].parents[0]
    opened = [world.open_pull_request(repository) for _ in range(count)]
    for pull in opened:
        world.retarget(pull, "release/0.x")
    return opened


def give_credential(settings: Settings, slug: str, secret: str) -> None:
    async def work() -> None:
        assert settings.database_url
        async with Warehouse(settings.database_url.get_secret_value()) as warehouse, warehouse.transaction() as all_:
            number = await connections.store(all_, slug, "bitbucket", slug, {})
            await credentials.add(all_, Vault.of(settings), number, new_credential(SecretStr(secret)))

    asyncio.run(work())


def on_workspace(settings: Settings, slug: str, work: Callable[[Workspace], Awaitable[Any]]) -> tuple[Any, list[str]]:
    """Runs `work` on an opened workspace; returns its result and the warnings."""
    assert settings.database_url
    url, listener = settings.database_url.get_secret_value(), Heard()

    async def run() -> Any:
        async with Warehouse(url) as warehouse:
            connection = await connection_in_service(warehouse, slug)
            pool = await open_pool(settings, warehouse, listener, connection)
            async with open_client(settings, warehouse, pool, connection) as client:
                return await work(await open_workspace(slug, client, warehouse, listener))

    return asyncio.run(run()), listener.warnings


class Installation:
    """A workspace of a sandbox, connected; each call is a run of its own."""

    def __init__(self, database_url: str, sandbox: Sandbox, **variables: str) -> None:
        self.database_url, self.sandbox = database_url, sandbox
        self.settings = Settings.model_validate(
            {"DX_DATABASE_URL": database_url, "DX_SECRET_KEYS": KEYS, "BITBUCKET_API_URL": sandbox.url} | variables
        )
        self.slug = sandbox.world.config.workspace
        self.warnings: list[str] = []
        give_credential(self.settings, self.slug, sandbox.token.secret)

    def sync(self, *, within: float | None = None, requests: int | None = None, **how: Any) -> Imported:
        """Runs every step once; `how` goes to `open_workspace`.

        Raises:
            TimeoutError: it was cut off after `within` seconds or so many `requests`, which leaves its session behind.
        """
        listener = Heard()
        last = self.sandbox.requests.count + requests if requests is not None else None

        async def cut_off(limit: asyncio.Timeout) -> None:
            while last is not None and self.sandbox.requests.count < last:  # noqa: ASYNC110 - threads count them
                await asyncio.sleep(0.001)
            limit.reschedule(0)

        async def run() -> Imported:
            async with Warehouse(self.database_url) as warehouse:
                session = await sessions.begin(warehouse, self.slug, afresh=bool(how.get("full")))
                async with asyncio.timeout(within) as limit:
                    cutting = asyncio.create_task(cut_off(limit)) if last is not None else None
                    done = await import_all(self.settings, warehouse, listener, self.slug, session=session, **how)
                if cutting is not None:
                    cutting.cancel()
                await sessions.end(warehouse, session)
                return done

        done = asyncio.run(run())
        self.warnings += listener.warnings
        return done

    def on_workspace(self, work: Callable[[Workspace], Awaitable[Any]]) -> Any:
        done, warnings = on_workspace(self.settings, self.slug, work)
        self.warnings += warnings
        return done

    def differences(self, since: datetime | None = None) -> dict[str, str]:
        """What differs from the truth in imported tables and, once these are built, in unified ones."""
        self.build()
        sizes = self.settings.pull_request_size == "on"
        imported = truth(self.sandbox.world, since, sizes=sizes)
        return differences(
            self.database_url, {**imported, **unified_truth(imported), **unified_truth_of_pipelines(imported)}, since
        )

    def build(self, *, full: bool = False, only: Build | None = None) -> list[Built]:
        """Builds the derived tables, or `only` one; `full` builds everything again."""

        async def run() -> list[Built]:
            async with Warehouse(self.database_url) as warehouse:
                row = await warehouse.row("SELECT id::text FROM bitbucket_workspaces WHERE slug = %s", [self.slug])
                async with warehouse.transaction() as transaction:
                    await resolve(transaction)
                builds = [only] if only else BUILDS
                return [await building.run(warehouse, build, row.id, full=full) for build in builds]

        return asyncio.run(run())

    def query(self, statement: str) -> list[dict[str, Any]]:
        with psycopg.connect(self.database_url, row_factory=dict_row) as connection:
            return connection.execute(statement.encode()).fetchall()
