"""The triggers that note in `changed_rows` what changed, and their functions.

Derived tables follow `changed_rows`. Without a trigger they would stay as they are, and nothing would say so.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from sqlalchemy import Connection, MetaData, event, text

from dx_dagster.warehouse.schema import bitbucket as imported
from dx_dagster.warehouse.schema import people
from dx_dagster.warehouse.schema.columns import metadata

FUNCTIONS = {
    "note_changed_rows": """ BEGIN
        IF EXISTS (SELECT FROM changed) THEN
            EXECUTE format('
                INSERT INTO public.changed_rows (kind, id, changed_in)
                SELECT DISTINCT %L, %I, pg_current_xact_id()::text::bigint FROM changed
                ORDER BY 2 ON CONFLICT (kind, id) DO UPDATE SET changed_in = EXCLUDED.changed_in
                WHERE changed_rows.changed_in <> EXCLUDED.changed_in',
                TG_ARGV[0], TG_ARGV[1]);
        END IF;
        RETURN NULL;
    END """,
    "note_changed_repositories": """ BEGIN
        INSERT INTO public.changed_rows (kind, id, changed_in)
        SELECT DISTINCT 'repository', id, pg_current_xact_id()::text::bigint FROM (
            SELECT id, workspace_id, name, slug, default_branch, api_accessible, deleted_at FROM changed
            EXCEPT
            SELECT id, workspace_id, name, slug, default_branch, api_accessible, deleted_at FROM before) differing
        ORDER BY 2 ON CONFLICT (kind, id) DO UPDATE SET changed_in = EXCLUDED.changed_in
        WHERE changed_rows.changed_in <> EXCLUDED.changed_in;
        RETURN NULL;
    END """,
    "note_changed_people": """ BEGIN
        INSERT INTO public.changed_rows (kind, id, changed_in)
        SELECT DISTINCT 'user', i.source_id, pg_current_xact_id()::text::bigint
        FROM changed JOIN public.identities i ON i.dx_user_id = changed.id
        ORDER BY 2 ON CONFLICT (kind, id) DO UPDATE SET changed_in = EXCLUDED.changed_in
        WHERE changed_rows.changed_in <> EXCLUDED.changed_in;
        RETURN NULL;
    END """,
}
# What is noted, and the column that says of which.
_NOTED_AS = {
    imported.pulls: ("pull", "id"),
    imported.pull_participants: ("pull", "pull_id"),
    imported.pull_activities: ("pull", "pull_id"),
    imported.pull_comments: ("pull", "pull_id"),
    imported.pull_commits: ("pull", "pull_id"),
    imported.reviews: ("pull", "pull_id"),
    imported.default_branch_commits: ("branch", "repository_id"),
    imported.pipelines: ("pipeline", "id"),
    imported.deployments: ("deployment", "id"),
    imported.environments: ("environment", "id"),
    imported.repositories: ("repository", "id"),
    imported.users: ("user", "id"),
    people.identities: ("user", "source_id"),
}
_ROWS = {"INSERT": "NEW TABLE AS changed", "UPDATE": "NEW TABLE AS changed", "DELETE": "OLD TABLE AS changed"}


@dataclass(frozen=True)
class Trigger:
    """A trigger of one table. `calls`: the function with its arguments; `rows`: what it calls the rows."""

    table: str
    event: str
    calls: str
    rows: str

    @property
    def name(self) -> str:
        return f"note_{self.event.lower()}"

    @property
    def statement(self) -> str:
        return (
            f"CREATE TRIGGER {self.name} AFTER {self.event} ON {self.table} REFERENCING {self.rows} "
            f"FOR EACH STATEMENT EXECUTE FUNCTION {self.calls}"
        )


def _declared() -> Iterator[Trigger]:
    for table, (kind, column) in _NOTED_AS.items():
        for of, rows in _ROWS.items():
            if table is imported.repositories and of == "UPDATE":  # each sync moves marks in the row
                yield Trigger(table.name, of, "note_changed_repositories()", f"OLD TABLE AS before {rows}")
            else:
                yield Trigger(table.name, of, f"note_changed_rows('{kind}', '{column}')", rows)
    yield Trigger(people.users.name, "UPDATE", "note_changed_people()", "NEW TABLE AS changed")


TRIGGERS = tuple(_declared())


def create_function(name: str) -> str:
    """The statement that makes one of `FUNCTIONS`, or replaces it."""
    body = " ".join(FUNCTIONS[name].split())
    return f"CREATE OR REPLACE FUNCTION public.{name}() RETURNS trigger LANGUAGE plpgsql AS $${body}$$"


@event.listens_for(metadata, "after_create")
def _create(_: MetaData, connection: Connection, **_more: object) -> None:
    for statement in (*map(create_function, FUNCTIONS), *(trigger.statement for trigger in TRIGGERS)):
        connection.execute(text(statement))
