"""Unified tables of pull requests are true, whatever changed and in whatever order."""

import asyncio
import multiprocessing
import os
import signal
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from random import Random

import psycopg
import pytest

from dx_dagster.insights import building
from dx_dagster.insights.building import Built
from dx_dagster.insights.people.people_file import PersonLine
from dx_dagster.insights.people.stating import state
from dx_dagster.insights.unified import BUILDS
from dx_dagster.sandbox import Sandbox, WorldConfig, truth
from dx_dagster.sandbox.pull_requests import PullRequest
from dx_dagster.sandbox.unified_truth import unified_truth
from dx_dagster.sandbox.world import World
from dx_dagster.warehouse.connecting import APPLICATION
from dx_dagster.warehouse.database import Warehouse
from dx_dagster_tests.comparing import differences
from dx_dagster_tests.conftest import wait_until
from dx_dagster_tests.importer.test_changing_worlds import change
from dx_dagster_tests.importing import Installation

SMALL = WorldConfig(seed=11, repositories=3, pull_requests=90, members=6)
ACME = "00000000-0000-0000-0000-0000000000a1"
NOTHING = [(0, 0)] * len(BUILDS)


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(SMALL) as running:
        yield running


def _written(built: list[Built]) -> list[tuple[int, int]]:
    return [(one.inserted, one.updated) for one in built]


def _merged(world: World) -> list[PullRequest]:
    return [pull for pull in world.open_repositories[0].pull_requests.values() if pull.state == "MERGED"]


def test_unified_tables_are_true_after_each_sync_and_a_full_build_has_nothing_to_add(sandbox, database_url):
    world, chances = sandbox.world, Random(3)
    installation = Installation(database_url, sandbox)
    installation.sync()
    zones = _give_zones(installation, world)
    for step in range(4):
        if step:
            for _ in range(12):
                change(world, chances)
            world.merge(world.revert(_merged(world)[-1]), "squash")
            installation.sync(full=step == 3)  # runs that run again are no news to the others
        built = installation.build()
        assert _written(installation.build(full=True)) == NOTHING
        imported = truth(world)
        assert differences(database_url, {**imported, **unified_truth(imported, zones)}) == {}
        assert [one.everything for one in built] == [not step] * len(BUILDS)
    assert _written(installation.build()) == NOTHING
    assert installation.query("SELECT count(*) AS n FROM pull_requests WHERE reverted")[0]["n"] == 3


def _give_zones(installation: Installation, world: World) -> dict[str, str]:
    """Some members work elsewhere, one of them where clocks change by half an hour."""
    names = ("America/New_York", "Asia/Kolkata", "Australia/Lord_Howe")
    members = list(zip(world.people.members, names, strict=False))

    async def give() -> None:
        async with Warehouse(installation.database_url) as warehouse, warehouse.transaction() as transaction:
            for user, _ in members:
                known = "UPDATE bitbucket_users SET email = %s WHERE source_id = %s"
                await transaction.execute(known, [user.email, user.uuid])
            lines = [PersonLine(line, user.email, tz=zone) for line, (user, zone) in enumerate(members, 2)]
            await state(transaction, lines)

    asyncio.run(give())
    return {user.uuid: zone for user, zone in members}


WEB = "00000000-0000-0000-0000-0000000000b1"
MONDAY = datetime(2026, 3, 2, 9, tzinfo=UTC)
SHA = {number: f"{number:08x}{'e' * 32}" for number in range(100, 120)}


class Written:
    """A workspace whose rows are written by hand."""

    def __init__(self, database_url: str) -> None:
        self._url = database_url
        self.connection = psycopg.connect(database_url, autocommit=True)
        self.execute("INSERT INTO bitbucket_workspaces (id, source_id, slug) VALUES (%s, '{a1}', 'acme')", ACME)
        self.execute(
            """INSERT INTO bitbucket_repositories (id, source_id, workspace_id, slug, name)
               VALUES (%s, '{b1}', %s, 'web', 'Web')""",
            WEB,
            ACME,
        )

    def execute(self, statement: str, *values: object) -> list[tuple[object, ...]]:
        cursor = self.connection.execute(statement.encode(), values)
        rows: list[tuple[object, ...]] = cursor.fetchall() if cursor.description else []
        return rows

    def user(self, name: str, kind: str = "human") -> str:
        [(number,)] = self.execute(
            """INSERT INTO bitbucket_users (id, source_id, workspace_id, name, type)
               VALUES (gen_random_uuid(), gen_random_uuid(), %s, %s, %s) RETURNING id::text""",
            ACME,
            name,
            kind,
        )
        return str(number)

    def pull(self, number: int, title: str, *commits: tuple[str, str], state: str = "MERGED", **columns: object) -> str:
        """A pull request that was merged `number` hours after Monday; `commits` are hashes and messages."""
        at = MONDAY + timedelta(hours=number)
        merged = {"merged_at": at, "closed_at": at, "merge_commit_sha": f"{number:08x}{'f' * 32}"}
        row = {
            "source_id": number, "repository_id": WEB, "title": title, "state": state, "created_at": MONDAY,
            **(merged if state == "MERGED" else {}), **columns,
        }  # fmt: skip
        [(pull,)] = self.execute(
            f"""INSERT INTO bitbucket_pulls (id, {", ".join(row)})
                VALUES (gen_random_uuid(), {", ".join(["%s"] * len(row))}) RETURNING id::text""",
            *row.values(),
        )
        for sha, message in commits:
            self.execute(
                """INSERT INTO bitbucket_pull_commits (id, sha, pull_id, message)
                   VALUES (gen_random_uuid(), %s, %s, %s)""",
                sha,
                pull,
                message,
            )
        return str(pull)

    def event(self, pull: str, user: str, hours: float, kind: str = "comment") -> None:
        self.execute(
            """INSERT INTO bitbucket_pull_activities (id, pull_id, user_id, kind, created_at)
               VALUES (gen_random_uuid(), %s, %s, %s, %s)""",
            pull,
            user,
            kind,
            MONDAY + timedelta(hours=hours),
        )

    def build(self, *, full: bool = False) -> list[tuple[int, int]]:
        async def run() -> list[Built]:
            async with Warehouse(self._url) as warehouse:
                return [await building.run(warehouse, build, ACME, full=full) for build in BUILDS]

        return _written(asyncio.run(run()))


@pytest.fixture
def written(database_url) -> Iterator[Written]:
    rows = Written(database_url)
    with rows.connection:
        yield rows


def test_a_pull_request_is_reverted_when_a_later_merged_one_says_so(written):
    reverts = {
        1: 'Revert "Speed up (pull request #1)"',
        2: "Undo it",  # its commit names the pull request
        3: 'Revert "Add caching"',
        4: "Roll back",  # its commit names the merge commit
        5: "Take it back",  # its commit names a commit of the pull request by a short hash
        6: 'PAY-7: Revert "Speed up (pull request #6)"',
        7: "Reverts pull request #7",
    }
    for number in (1, 6, 9):
        written.pull(number, "Speed up")
    for number in (2, 4, 7, 15):
        written.pull(number, f"Number {number}")
    written.pull(5, "Number 5", (SHA[105], "Step"), (SHA[106], "Step"))
    written.pull(10, "Add caching")
    written.pull(3, "Add caching", merged_at=MONDAY + timedelta(hours=11))  # the latest of this title
    written.pull(12, "Add caching", state="DECLINED")
    quoted = '> Revert "Speed up"\n>\n> This reverts pull request #9.'
    messages = {
        2: f'Revert "Number 2"\n\nThis reverts pull request #2.\n\n{quoted}',
        4: f'Revert "x"\n\nThis reverts commit {4:08x}{"f" * 32}, reversing\nchanges made to {SHA[119]}.\n',
        5: f"This reverts commit {SHA[106][:12]} (Step, 2026-03-02).",
    }
    for number, title in reverts.items():
        written.pull(20 + number, title, (SHA[107 + number], messages.get(number, "Revert")))
    written.pull(41, 'Revert "Number 15"', state="OPEN")
    written.pull(42, 'Revert "Nobody knows"')
    written.pull(43, "Release", (SHA[105], "Step"), (SHA[118], f"This reverts commit {SHA[105]}."))
    written.pull(44, "Release again", (SHA[105], "Step"), (SHA[118], f"This reverts commit {SHA[105]}."))
    written.pull(45, 'Revert "Revert "Add caching" (pull request #23)"')
    written.pull(
        46, 'Revert "Revert "Speed up (pull request #1)""', (SHA[117], 'Revert "Revert "x (pull request #9)""')
    )

    def reverted() -> list[int]:
        return [number for (number,) in written.execute(
            "SELECT external_id::int FROM pull_requests WHERE reverted ORDER BY 1"
        )]  # fmt: skip

    written.build()
    assert reverted() == [*reverts, 21, 23]
    # What makes another one reverted, or none, is followed although that one has not changed itself.
    written.execute("UPDATE bitbucket_pulls SET title = 'Add a cache' WHERE source_id = 3")
    written.execute(
        "UPDATE bitbucket_pulls SET state = 'MERGED', merged_at = %s WHERE source_id = 41", MONDAY + timedelta(9)
    )
    written.execute("UPDATE bitbucket_pull_commits SET deleted = true WHERE message LIKE '%%#2.%%'")
    written.build()
    assert reverted() == [1, 4, 5, 6, 7, 10, 15, 21, 23]
    assert written.build(full=True) == NOTHING


def test_issues_are_named_by_keys_in_titles_and_source_branches_as_long_as_they_name_them(written):
    named: Mapping[int, tuple[str, str, set[str]]] = {
        1: ("PAY-12: Pay (WEB-3, PAY-12)", "feature/PAY-12-pay", {"PAY-12", "WEB-3"}),
        2: ("Use UTF-8, SHA-256 and ISO-8601", "fix/CVE-2026-1234", set()),
        3: ("pay-12, A-1, PAY-0, PAY-012, xPAY-1, PAY-1x, ÄPAY-1, 1PAY-1", "feature/abc-123-x", {"PAY-1"}),
        4: ("No key", "bugfix-A_2B-7.fix", {"A_2B-7"}),
        5: ("", "main", set()),
    }
    for number, (title, branch, _) in named.items():
        written.pull(number, title, source_branch=branch)
    written.pull(6, "", source_branch=None)

    def found() -> dict[object, set[object]]:
        rows: dict[object, set[object]] = {}
        for number, key, _ in keys():
            rows.setdefault(number, set()).add(key)
        return rows

    def keys() -> list[tuple[object, ...]]:
        rows: list[tuple[object, ...]] = written.execute("""
            SELECT t.external_id::int, i.issue_key, i.id FROM pull_request_issues i
            JOIN pull_requests t ON t.id = i.pull_request_id ORDER BY i.id""")
        return rows

    written.build()
    assert found() == {number: expected for number, (_, _, expected) in named.items() if expected}
    before = keys()
    written.execute("UPDATE bitbucket_pulls SET title = 'WEB-3 and WEB-4', source_branch = 'x' WHERE source_id = 1")
    written.build()
    assert found()[1] == {"WEB-3", "WEB-4"}
    assert [row for row in keys() if row[1] != "WEB-4"] == [row for row in before if row[1] != "PAY-12"]
    written.execute("DELETE FROM bitbucket_pulls WHERE source_id = 1")
    written.build()
    assert 1 not in found()
    assert written.build(full=True) == NOTHING


def test_durations_count_from_ready_for_review_and_only_from_reviews_by_other_people(written):
    ann, bob, bot = written.user("Ann"), written.user("Bob"), written.user("Renovate", "bot")
    ready = {"user_id": ann, "ready_for_review": MONDAY + timedelta(hours=10)}
    draft = written.pull(40, "Was a draft", **ready)
    for user, hours, kind in (
        (bob, 4, "comment"),  # before it was ready
        (ann, 11, "comment"),
        (bot, 12, "approval"),
        (bob, 24, "comment"),
        (bob, 30, "approval"),
        (bob, 41, "comment"),  # after the merge
    ):
        written.event(draft, user, hours, kind)
    early = written.pull(8, "Merged before it was ready", **ready)
    written.event(early, bob, 7)
    alone = written.pull(5, "By a bot", user_id=bot)
    written.event(alone, bot, 3, "approval")
    written.build()
    rows = written.execute("""
        SELECT external_id, open_to_first_review / 3600, open_to_first_review_business_hours / 3600,
               open_to_first_approval / 3600, open_to_merge / 3600, open_to_merge_business_hours / 3600,
               bot_authored, bot_name, bot_type FROM pull_requests ORDER BY external_id::int""")
    assert rows == [
        ("5", None, None, None, 5, 5, True, "Renovate", "bot"),
        ("8", None, None, None, None, None, False, None, None),
        ("40", 14, 1, 20, 30, 10, False, None, None),
    ]


def test_builds_that_run_at_once_or_in_the_wrong_order_miss_nothing_of_each_other(sandbox, database_url):
    installation = Installation(database_url, sandbox)
    installation.sync()
    [workspace] = installation.query("SELECT id::text AS id FROM bitbucket_workspaces")
    _build_all_at_once(database_url, workspace["id"])
    assert installation.differences() == {}
    sandbox.world.open_pull_request(sandbox.world.open_repositories[0])
    sandbox.world.create_repository()
    installation.sync()
    for build in reversed(BUILDS):
        installation.build(only=build)
    assert installation.differences() == {}
    assert _written(installation.build(full=True)) == NOTHING


def _build_all_at_once(database_url: str, workspace_id: str) -> None:
    async def run() -> None:
        async with Warehouse(database_url, connections=len(BUILDS)) as warehouse:
            await asyncio.gather(*(building.run(warehouse, build, workspace_id) for build in BUILDS))

    asyncio.run(run())


def test_a_build_that_is_killed_leaves_the_old_rows_and_their_mark(sandbox, database_url):
    installation = Installation(database_url, sandbox)
    installation.sync()
    installation.build()
    tables = {str(derivation.table.name) for build in BUILDS for derivation in build.derivations} | {"build_marks"}

    def content() -> dict[str, object]:
        query = "SELECT md5(string_agg(t::text, '\n' ORDER BY t::text)) AS hash FROM {} t"
        return {table: installation.query(query.format(table))[0]["hash"] for table in tables}

    def sessions(which: str) -> int:
        rows = installation.query(f"""
            SELECT pid FROM pg_stat_activity
            WHERE datname = current_database() AND application_name = '{APPLICATION}' AND {which}""")
        return len(rows)

    before = content()
    pull = next(pull for pull in sandbox.world.open_repositories[0].pull_requests.values() if pull.state == "OPEN")
    sandbox.world.edit_title(pull, "PAY-9001: Another title")
    sandbox.world.push(pull)
    sandbox.world.merge(pull, "squash")
    sandbox.world.rename_repository(sandbox.world.open_repositories[0])
    installation.sync()
    [workspace] = installation.query("SELECT id::text AS id FROM bitbucket_workspaces")
    with psycopg.connect(database_url) as blocking:
        blocking.execute("LOCK TABLE build_marks IN SHARE MODE")  # each build writes its mark at the end
        process = multiprocessing.get_context("forkserver").Process(
            target=_build_all_at_once, args=(database_url, workspace["id"])
        )
        process.start()
        assert wait_until(lambda: sessions("wait_event_type = 'Lock'") == len(BUILDS))
        os.kill(process.pid or 0, signal.SIGKILL)
        process.join()
    assert wait_until(lambda: sessions("true") == 0)
    assert content() == before
    installation.build()
    assert {table for table, hashed in content().items() if hashed == before[table]} == set()
