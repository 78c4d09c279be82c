"""Landed migrations never change, and databases of every earlier commit become the declared one, rows and all."""

import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any

import psycopg
import pytest
from alembic import command
from alembic.config import Config
from psycopg import sql
from psycopg.rows import dict_row
from sqlalchemy import event

from dx_dagster.warehouse import migrations, versions
from dx_dagster.warehouse.analyst_role import make_role_if_allowed
from dx_dagster.warehouse.database import Warehouse, WarehouseError
from dx_dagster.warehouse.embedded import EmbeddedServer
from dx_dagster.warehouse.migrations.live_schema import differences
from dx_dagster.warehouse.readiness import is_current
from dx_dagster_tests.warehouse.catalog import facts

SCRIPTS = Path(migrations.__file__).parent
LANDED = {
    "0001_the_import.py": "41200d23d257b9d636c6132fd4bef2076fda93983b9b7e56272730553a9cb6c3",
    "0002_the_budget_ledger.py": "7f92b4e0eccdd758d7d0e29368af329cb81310c6944003322cf920462eb14e3f",
    "0003_the_inbox_of_webhooks.py": "b82b846d58c21a1d29074c7e8ad723748959fe544d5ee5dc7ac3cc1c67cc3119",
    "0004_keys_of_the_data_cloud_api.py": "69c8259055a6988771fab93ec9dea43b26730747642343d673460d38936e2047",
    "0005_where_pull_requests_come_from.py": "111ee6d776aedadc985057e770102849f3105a9088f8c5094c3f0543455dd195",
    "0006_dates_of_merge_commits.py": "d602fb97ab962f9a7d14b4e8d13934d1d6c03fe0fa6b431784aa856901d55a4a",
    "0007_opinions_newer_than_the_list.py": "50b8cbe9ba1f64012c8cf914fc6cbc53e81d7ca6c5ee6fe7743acd145742dcf4",
    "0008_bounds_ends_and_pauses.py": "b8c37fde99362c7576e45a18664f2fc8914e4a63fb6bb8226c3ab6ab69138f52",
    "0009_parts_that_landed_late.py": "201b6c93b80b1488293985e0e6fbb1d224340d7a30e905b0b8b671845676b31a",
    "0010_who_imports_a_workspace.py": "37e74379b465c68eb05ba9d276990e2a187ddc867c8aaa674ca111d9150aeebc",
    "0011_what_marks_hold.py": "11884b7184a89cc890d2fded94a4de6ed498640c61e9f25e727f095d0c00e7d1",
    "0012_deployments_and_reviews.py": "0b9b43513aa8e0cfed12a080d66f175b71f2951bcee2507358012e71ba231b3a",
    "0013_people_and_teams.py": "83cf5f0ef6d90481c3071e68ea663644e8236e79bab9c41edb4d187a4e096524",
    "0014_unified_tables.py": "eaa1dbb1090cc9372cce9e0b4886a84695bb2d3eff425ea5fce76b890bbae009",
    "0015_what_changed_when.py": "3658359cb01cbed498088e2e482e529eb196d77eddf74d6ba1c874624a42718b",
    "0016_what_syncs_did.py": "1a41927f5a83214fc763625e715fcee6c8c8a73d1684df8db71ba75beaaad83c",
    "0017_which_webhooks_are_believed.py": "317bf445ea6ee2f20560854cd9abbde7010a73e008937962914efee0bbc1afa5",
    "0018_sessions_of_syncs.py": "ac18e0ac49c3ac9a38df0bf52689cebb9b720d52aea1b1042f0c743076637250",
    "0019_addresses_asked_of_bitbucket.py": "9b9e550c6ed8efb943532a007a65c785d203180916bc7d89b0aa95b326d20aa7",
    "0020_requests_by_status.py": "b57a3691d0c34267b9e1ed3a9c22ec50244c181dcf991e4edffa138db35d967f",
    "0021_limits_of_the_api.py": "895532e1977edb68ebcd94afbcbaa5928c914a26857b5b04be79a267fd288244",
    "0022_measures.py": "590dd8f6d239bbd7d1a13c4fefdeaddaecc6fbdfad2dcfe63089cba334ab3bcb",
    "0023_keys_of_insights.py": "ebbccfe48e407223d5b3ca15dbfafd6e7c96b5c2b0f7133f98131cf5123e6805",
    "0024_reviews_by_authors.py": "c1d6a324a4c86aaa59554b0aace874837f341e75b0dbbeeaf227f35dd67ddbc5",
}
# What 0002 to 0005 did not make yet when they landed: 0002 in fead7f0, 0003 and 0004 in d8bc5c7, 0005 in 1948b03.
NO_LEDGER = "DROP TABLE budgets"
NO_DOORS = "DROP TABLE webhook_events, webhook_secrets, api_sessions, api_keys, credential_checks"
NOT_ASKED = "ALTER TABLE sync_marks DROP COLUMN asked_at"
EARLIER: dict[str, tuple[str, Sequence[str]]] = {
    "0001": ("0001", ()),
    "0002": ("0002", ()),
    "0003": ("0003", ()),
    "0004": ("0004", ()),
    "0005": ("0005", ()),
    "0006": ("0006", ()),
    "0007": ("0007", ()),
    "0008": ("0008", ()),
    "0009": ("0009", ()),
    "0004 of fead7f0": ("0004", (NO_LEDGER, NO_DOORS)),
    "0004 of d8bc5c7": ("0004", (NO_DOORS,)),
    "0007 of fead7f0 and 1948b03": ("0007", (NO_LEDGER, NO_DOORS, NOT_ASKED)),
    "0008 of 1948b03": ("0008", (NOT_ASKED,)),
    versions.WORKS_FROM: (versions.WORKS_FROM, ()),
}
EARLY, LATE, ENTRIES = (datetime(2026, month, 1, tzinfo=UTC) for month in (1, 2, 3))
SMALL, LARGE = (f"00000000-0000-0000-0000-00000000000{n}" for n in (1, 2))  # repositories
ACME, ANN, PULL = (f"00000000-0000-0000-0000-0000000000{n}" for n in ("a1", "b1", "c1"))
# In a database that imported each repository since another date, under two spellings of one workspace's name.
ROWS = f"""
    INSERT INTO bitbucket_workspaces (id, source_id, slug, name)
        VALUES ('{ACME}', '{{a}}', 'acme', 'Acme Inc.');
    INSERT INTO bitbucket_repositories (id, source_id, workspace_id, slug)
        VALUES ('{SMALL}', '{{1}}', '{ACME}', 'small'),
               ('{LARGE}', '{{2}}', '{ACME}', 'large');
    INSERT INTO bitbucket_users (id, source_id, workspace_id, name, type)
        VALUES ('{ANN}', '{{b1}}', '{ACME}', 'Ann', 'human'),
               ('00000000-0000-0000-0000-0000000000b2', '{{b2}}', '{ACME}', 'CI', 'bot');
    INSERT INTO bitbucket_pulls (id, source_id, repository_id, user_id, title, state, created_at, open_to_first_review)
        VALUES ('{PULL}', 1, '{SMALL}', '{ANN}', 'One',
                'OPEN', '2026-04-01', 60);
    INSERT INTO bitbucket_pipelines (id, source_id, repository_id, build_number)
        VALUES ('00000000-0000-0000-0000-0000000000d1', '{{d1}}', '{SMALL}', 7);
    INSERT INTO pull_marks (pull_id, repository_id, number, commits_synced_for)
        VALUES ('{PULL}', '{SMALL}', 1, 'abc main');
    INSERT INTO sync_marks (repository_id, kind, synced_to, since)
        VALUES ('{SMALL}', 'pullrequests', '2026-04-02', '{EARLY}'), ('{SMALL}', 'activity', '2026-04-02', '{ENTRIES}'),
               ('{SMALL}', 'pipelines', '2026-04-02', NULL), ('{LARGE}', 'pullrequests', '2026-04-02', '{LATE}'),
               ('{LARGE}', 'commits', '2026-04-02', '{LATE}');
    INSERT INTO connections (type, workspace, name, state, last_synced_at)
        VALUES ('bitbucket', 'acme', 'Old', 'verified', '2026-04-01'),
               ('bitbucket_pipelines', 'acme', 'Pipelines', 'verified', NULL);
    INSERT INTO credentials (connection_id, type, label, secret, hint)
        VALUES (1, 'access_token', 'first', 'encrypted', 'abcd');"""
TWIN = """
    INSERT INTO connections (type, workspace, name, state, last_synced_at)
        VALUES ('bitbucket', 'Acme', 'New', 'verified', '2026-04-02');
    INSERT INTO credentials (connection_id, type, label, secret, hint)
        VALUES (3, 'access_token', 'second', 'encrypted', 'efgh');"""
DELIVERIES = """
    INSERT INTO webhook_secrets (connection_id, secret) VALUES (1, 'encrypted');
    INSERT INTO webhook_events (connection_id, workspace, request_uuid, event_key, headers, body, received_at)
        VALUES (1, 'acme', 'one', 'pullrequest:created', '{}', '{}', '2026-04-01')"""
LEDGER = "INSERT INTO budgets (name, spent) VALUES ('credential:1', '[[29000000, 7]]')"
# What 0008 changes on purpose in the rows that it finds.
CHANGED = {
    ("sync_marks", "since"),
    ("bitbucket_workspaces", "slug"),
    ("connections", "workspace"),
    ("connections", "deleted_at"),
    ("credentials", "connection_id"),
    ("webhook_secrets", "connection_id"),
    ("webhook_events", "workspace"),
}
Rows = dict[str, list[dict[str, Any]]]


def test_a_landed_migration_never_changes():
    found = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in SCRIPTS.glob("versions/[0-9]*.py")}
    changed = sorted(name for name in LANDED if found.get(name) != LANDED[name])
    assert changed == [], (
        "A landed migration never changes: databases that ran it will not run it again. Add a new one that makes the "
        "difference."
    )
    assert found.keys() == LANDED.keys(), "Pin the new migration by its hash, once it is final."


def test_a_database_of_every_earlier_commit_becomes_the_declared_one_with_its_rows(postgres, database_url):
    declared = facts(database_url)
    with earlier_databases(postgres) as databases:
        for what, url, version in databases:
            before, tables_before = rows(url), demands(url)
            migrations.upgrade(url)
            assert facts(url) == declared, what
            if what == versions.WORKS_FROM:
                assert hindrances(tables_before, demands(url)) == [], HOW_TO_GO_ON
            after = rows(url)
            assert_kept(before, after, set() if version >= "0008" else CHANGED, what)
            if version < "0008":
                assert_bounds_and_names(after, what)


@contextmanager
def earlier_databases(postgres: EmbeddedServer) -> Iterator[Iterator[tuple[str, str, str]]]:
    """Databases with rows as earlier commits left them: what each is, its address and its version."""
    names = (f"earlier_{number}" for number in count())

    def make() -> Iterator[tuple[str, str, str]]:
        server.execute("CREATE DATABASE earlier")
        chain, at = address(postgres, "earlier"), ""
        for what, (version, drops) in sorted(EARLIER.items(), key=lambda item: item[1][0]):
            if version != at:
                upgrade_to(chain, version)
                at = version
            server.execute(f"CREATE DATABASE {(name := next(names))} TEMPLATE earlier STRATEGY file_copy".encode())
            made.append(name)
            with psycopg.connect(address(postgres, name)) as connection:
                for drop in drops:
                    connection.execute(drop.encode())
                fill(connection, version)
            yield what, address(postgres, name), version

    made = ["earlier"]
    with psycopg.connect(postgres.url, autocommit=True) as server:
        try:
            yield make()
        finally:
            for name in made:
                server.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)".encode())


def fill(connection: psycopg.Connection[Any], version: str) -> None:
    connection.execute(ROWS.encode())
    if version < "0008":  # which made one of two such names
        connection.execute(TWIN.encode())
    for table, statements in (("webhook_events", DELIVERIES), ("budgets", LEDGER)):
        if connection.execute("SELECT to_regclass(%s)", [table]).fetchone() != (None,):
            connection.execute(statements.encode())


def upgrade_to(url: str, version: str) -> None:
    with migrations.alone(url) as connection:
        configuration = Config()
        configuration.set_main_option("script_location", str(SCRIPTS))
        configuration.attributes["connection"] = connection
        command.upgrade(configuration, version)
        connection.commit()


def address(postgres: EmbeddedServer, name: str) -> str:
    return postgres.url.replace("/postgres?", f"/{name}?")


def rows(url: str) -> Rows:
    """All rows of our tables, in the order of their first columns."""
    with psycopg.connect(url, row_factory=dict_row) as connection:
        names = [
            row["tablename"]
            for row in connection.execute(
                "SELECT tablename FROM pg_tables WHERE schemaname = 'public' AND tablename <> 'dx_schema_version'"
            )
        ]
        return {
            name: connection.execute(sql.SQL("SELECT * FROM {} ORDER BY 1, 2").format(sql.Identifier(name))).fetchall()
            for name in names
        }


def assert_kept(before: Rows, after: Rows, changed: set[tuple[str, str]], what: str) -> None:
    for table, stored in before.items():
        kept = [column for column in (stored or [{}])[0] if (table, column) not in changed]
        values = [[row[column] for column in kept] for row in stored]
        assert [[row[column] for column in kept] for row in after[table]] == values, (what, table)


def assert_bounds_and_names(after: Rows, what: str) -> None:
    """0008: the workspace is bounded by what all its repositories hold, and one connection is left of two."""
    (workspace,) = after["bitbucket_workspaces"]
    assert (workspace["slug"], workspace["since"]) == ("Acme", LATE), what
    marks = {
        (str(row["repository_id"]), row["kind"]): (row["bound"], row["walk_bound"], row["since"])
        for row in after["sync_marks"]
    }
    assert marks == {
        (SMALL, "pullrequests"): (EARLY, EARLY, None),
        (SMALL, "activity"): (LATE, LATE, ENTRIES),
        (SMALL, "pipelines"): (None, None, None),
        (LARGE, "pullrequests"): (LATE, LATE, None),
        (LARGE, "commits"): (LATE, LATE, None),
    }, what
    assert [row["counted_as"] for row in after["bitbucket_users"]] == ["human", "bot"], what
    left = [(row["id"], row["workspace"]) for row in after["connections"] if row["deleted_at"] is None]
    assert left == [(2, "Acme"), (3, "Acme")], what
    moved = [*after["credentials"], *after["webhook_secrets"]]
    assert {row["connection_id"] for row in moved} == {3}, what
    assert {row["workspace"] for row in after["webhook_events"]} <= {"Acme"}, what


HOW_TO_GO_ON = (
    "A process of the release before still runs while the tables are upgraded, and would fail on these. Let this "
    "release stop to use what is to go, and let the next one remove it. If that cannot be, raise WORKS_FROM."
)
# What tables demand of the statements of a release that knows only some of them.
DEMANDS = """
    SELECT c.relname AS name, '' AS part, 'table' AS demand FROM pg_class c
    WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace
    UNION ALL
    SELECT c.relname, attname, 'type ' || format_type(atttypid, atttypmod)
    FROM pg_class c JOIN pg_attribute a ON attrelid = c.oid
    WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace AND attnum > 0 AND NOT attisdropped
    UNION ALL
    SELECT c.relname, attname, 'a value'
    FROM pg_class c JOIN pg_attribute a ON attrelid = c.oid
    WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace AND attnum > 0 AND NOT attisdropped
        AND attnotnull AND NOT atthasdef AND attidentity = ''
    UNION ALL
    SELECT c.relname, attname, 'no null'
    FROM pg_class c JOIN pg_attribute a ON attrelid = c.oid
    WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace AND attnum > 0 AND NOT attisdropped AND attnotnull
    UNION ALL
    SELECT conrelid::regclass::text, '', pg_get_constraintdef(oid) FROM pg_constraint
    WHERE connamespace = 'public'::regnamespace AND contype IN ('c', 'f', 'x')
    UNION ALL
    SELECT indrelid::regclass::text, '', regexp_replace(pg_get_indexdef(indexrelid), ' INDEX .*? ON ', ' INDEX ON ')
    FROM pg_index JOIN pg_class c ON c.oid = indrelid
    WHERE relnamespace = 'public'::regnamespace AND indisunique"""
Demand = tuple[str, str, str]


def demands(url: str) -> set[Demand]:
    with psycopg.connect(url) as connection:
        return set(connection.execute(DEMANDS).fetchall())


def hindrances(before: set[Demand], after: set[Demand]) -> list[Demand]:
    """What statements written for the tables before would fail on: what is gone, and what is newly demanded.

    A unique index that went counts too: a statement may name it in ON CONFLICT.
    """
    tables = {name for name, _, demand in before if demand == "table"}
    columns = {(name, part) for name, part, demand in before if demand.startswith("type ")}
    gone = {one for one in before - after if one[2] == "table" or one[2].startswith(("type ", "CREATE UNIQUE"))}
    new = {
        (name, part, demand)
        for name, part, demand in after - before
        if name in tables and not demand.startswith("type ") and (demand != "no null" or (name, part) in columns)
    }
    return sorted(gone | new)


def test_what_the_release_before_would_fail_on_is_found(database_url):
    before = demands(database_url)
    with psycopg.connect(database_url) as connection:
        for statement in (
            "ALTER TABLE connections ADD COLUMN kind text NOT NULL",
            "ALTER TABLE connections ADD COLUMN harmless text NOT NULL DEFAULT '', ADD COLUMN too text",
            "ALTER TABLE connections ALTER COLUMN last_error SET NOT NULL",
            "ALTER TABLE sync_steps ALTER COLUMN skipped DROP DEFAULT, DROP COLUMN counted",
            "ALTER TABLE bitbucket_pulls ALTER COLUMN title TYPE varchar(80)",
            "ALTER TABLE api_keys ADD CHECK (name <> '')",
            "CREATE UNIQUE INDEX other ON sync_steps (workspace)",
            "ALTER TABLE pull_marks DROP CONSTRAINT pull_marks_pkey",
            "CREATE TABLE another (id int PRIMARY KEY, name text NOT NULL)",
            "DROP TABLE budgets",
        ):
            connection.execute(statement.encode())
    found = {
        (name, part, demand.partition(" USING")[0]) for name, part, demand in hindrances(before, demands(database_url))
    }
    assert found >= {
        ("connections", "kind", "a value"),
        ("connections", "last_error", "no null"),
        ("sync_steps", "skipped", "a value"),
        ("sync_steps", "counted", "type text"),
        ("bitbucket_pulls", "title", "type text"),
        ("api_keys", "", "CHECK ((name <> ''::text))"),
        ("sync_steps", "", "CREATE UNIQUE INDEX ON public.sync_steps"),
        ("pull_marks", "", "CREATE UNIQUE INDEX ON public.pull_marks"),
        ("budgets", "", "table"),
    }
    assert {name for name, _, _ in found} == {
        "connections", "sync_steps", "bitbucket_pulls", "api_keys", "pull_marks", "budgets",
    }  # fmt: skip
    assert not {"harmless", "too"} & {part for _, part, _ in found}


DAMAGE = {
    "ALTER TABLE sync_marks DROP COLUMN asked_at": "The column asked_at of the table sync_marks is missing: ",
    "ALTER TABLE bitbucket_pulls ALTER COLUMN title TYPE varchar(80)": (
        "The column title of the table bitbucket_pulls has the type character varying(80) instead of text: "
    ),
    "ALTER TABLE bitbucket_users ALTER COLUMN type DROP DEFAULT": (
        "The column type of the table bitbucket_users has no default: "
    ),
    "ALTER TABLE credentials ALTER COLUMN id DROP IDENTITY": "The column id of the table credentials has no default: ",
    "ALTER TABLE bitbucket_pulls ALTER COLUMN state DROP NOT NULL": (
        "The column state of the table bitbucket_pulls may be null: "
    ),
    "ALTER TABLE bitbucket_pulls ALTER COLUMN user_id SET NOT NULL": (
        "The column user_id of the table bitbucket_pulls is NOT NULL: "
    ),
    "DROP INDEX ix_bitbucket_pulls_merged_at": (
        "The index ix_bitbucket_pulls_merged_at of the table bitbucket_pulls is missing: "
    ),
    "DROP INDEX uq_api_keys_name; CREATE UNIQUE INDEX uq_api_keys_name ON api_keys (name)": (
        "The index uq_api_keys_name of the table api_keys has another definition: "
    ),
    "ALTER TABLE pull_marks DROP CONSTRAINT pull_marks_pkey": (
        "The index pull_marks_pkey of the table pull_marks is missing: "
    ),
    "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'ix_bitbucket_pulls_user_id'::regclass": (
        "The index ix_bitbucket_pulls_user_id of the table bitbucket_pulls is invalid: "
    ),
    "DROP FUNCTION note_changed_repositories CASCADE": "The function note_changed_repositories is missing: ",
    "CREATE OR REPLACE FUNCTION note_changed_people() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RETURN NULL; END$$": (
        "The function note_changed_people has another definition: "
    ),
    "DROP TRIGGER note_insert ON bitbucket_pulls": "The trigger note_insert of the table bitbucket_pulls is missing: ",
    "ALTER TABLE bitbucket_pull_comments DISABLE TRIGGER note_delete": (
        "The trigger note_delete of the table bitbucket_pull_comments is disabled: "
    ),
    "CREATE OR REPLACE TRIGGER note_delete AFTER DELETE ON bitbucket_users REFERENCING OLD TABLE AS changed "
    "FOR EACH STATEMENT EXECUTE FUNCTION note_changed_rows('pull', 'id')": (
        "The trigger note_delete of the table bitbucket_users has another definition: "
    ),
}


def test_each_difference_is_one_sentence_whose_statement_mends_it(database_url):
    with psycopg.connect(database_url, autocommit=True) as connection:
        for statement in DAMAGE:
            connection.execute(statement.encode())
        found = compared(database_url)
        for begin in DAMAGE.values():
            assert [sentence for sentence in found if sentence.startswith(begin)], (begin, found)
        assert len(found) == len(DAMAGE) + 1  # the function took its trigger along
        for sentence in found:
            connection.execute(sentence.partition(": ")[2].removesuffix(".").encode())
        assert compared(database_url) == []

        connection.execute("DROP TABLE budgets")
        (sentence,) = compared(database_url)
        assert "The table budgets is missing: restore it" in sentence
        with pytest.raises(WarehouseError, match="The table budgets is missing"):
            migrations.upgrade(database_url)


def test_a_build_that_fills_an_empty_table_and_commands_do_not_fail_each_other(database_url):
    with ThreadPoolExecutor(1) as pool, psycopg.connect(database_url) as building:
        building.execute("DROP INDEX ix_pull_requests_merged")
        building.execute("ALTER TABLE pull_requests DROP CONSTRAINT pull_requests_pkey")
        assert pool.submit(migrations.upgrade, database_url).result(10)
        granting = pool.submit(make_role_if_allowed, database_url)
        time.sleep(0.3)
        building.execute("CREATE INDEX ON pull_requests (merged)")
        building.execute("ANALYZE pull_requests")
        building.rollback()
        assert granting.result(20)


def test_what_administrators_add_is_no_difference_and_looking_is_one_query(database_url):
    with psycopg.connect(database_url) as connection:
        connection.execute("ALTER TABLE bitbucket_pulls ADD COLUMN ours text")
        connection.execute("CREATE INDEX ON bitbucket_pulls (title)")
        connection.execute("ALTER INDEX ix_bitbucket_pulls_merged_at SET (fillfactor = 90)")
        connection.execute("CREATE TABLE elsewhere (id int)")
    statements: list[str] = []
    assert compared(database_url, statements.append) == []
    assert len(statements) == 1


def compared(url: str, listener: Callable[[str], None] = lambda _: None) -> list[str]:
    with migrations.alone(url) as connection:
        event.listen(connection, "before_cursor_execute", lambda _c, _k, statement, *_: listener(statement))
        return differences(connection)


@pytest.mark.anyio
async def test_a_process_of_another_release_ends_with_a_sentence_unless_it_works_on_the_tables_too(database_url):
    before, ours = versions.known()[-2:]
    for version, works_from, of, said in (
        ("later", "later", "later", "newer release.* version later"),
        ("later", before, ours, "newer release.* version later"),  # the newer release did not end its upgrade
        (before, before, before, "Run dx-dagster migrate"),
        ("later", ours, "later", None),
    ):
        with psycopg.connect(database_url) as connection:
            changed = "UPDATE dx_schema_version SET version_num = %s, works_from = %s, works_from_of = %s"
            connection.execute(changed, [version, works_from, of])
        with nullcontext() if said is None else pytest.raises(WarehouseError, match=said):
            async with Warehouse(database_url):
                pass
    migrations.upgrade(database_url)
    with psycopg.connect(database_url) as connection:
        assert is_current(connection)
        assert connection.execute(versions.STORED).fetchone() == ("later", ours)
