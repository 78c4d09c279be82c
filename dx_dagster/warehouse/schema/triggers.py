"""The triggers and their functions: they note in `changed_rows` what changed, and keep what somebody said.

Derived tables follow `changed_rows`. Without a trigger they would stay as they are, and nothing would say so.

A type of an account that somebody set wins over the imported one, and of a forgotten account nothing is stored again,
whoever writes. `ON CONFLICT DO UPDATE` sees the row as the trigger leaves it, so importing the same page again finds no
difference.
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
    "keep_users": """ DECLARE said text; BEGIN
        IF TG_OP = 'INSERT' THEN
            SELECT t.type INTO said FROM public.account_types t WHERE t.source_id = NEW.source_id;
            IF FOUND THEN
                NEW.type := said;
                NEW.bot := said <> 'human';
                NEW.counted_as := said;
            END IF;
            NEW.forgotten := EXISTS (
                SELECT FROM public.forgotten_accounts f
                WHERE f.account_hash IN (encode(sha256(convert_to(NEW.source_id, 'UTF8')), 'hex'),
                                         encode(sha256(convert_to(NEW.account_id, 'UTF8')), 'hex')));
        END IF;
        IF NEW.forgotten THEN
            NEW.name := NULL;
            NEW.nickname := NULL;
            NEW.email := NULL;
        END IF;
        RETURN NEW;
    END """,
    "keep_comments": """ BEGIN
        IF EXISTS (SELECT FROM public.bitbucket_users u WHERE u.id = NEW.user_id AND u.forgotten) THEN
            NEW.content := NULL;
        END IF;
        RETURN NEW;
    END """,
}
# What is noted, and the column that says of which.
_NOTED_AS = {
    imported.pulls: ("pull", "id"),
    imported.pull_participants: ("pull", "pull_id"),
    imported.pull_activities: ("pull", "pull_id"),
    imported.pull_comments: ("pull", "pull_id"),
    imported.pull_commits: ("pull", "pull_id"),
    imported.reviews: ("review", "pull_id"),
    imported.default_branch_commits: ("branch", "repository_id"),
    imported.pipelines: ("pipeline", "id"),
    imported.deployments: ("deployment", "id"),
    imported.environments: ("environment", "id"),
    imported.repositories: ("repository", "id"),
    imported.users: ("user", "id"),
    people.account_emails: ("address", "user_id"),
    people.identities: ("user", "source_id"),
}
_ROWS = {"INSERT": "NEW TABLE AS changed", "UPDATE": "NEW TABLE AS changed", "DELETE": "OLD TABLE AS changed"}


@dataclass(frozen=True)
class Trigger:
    """A trigger of one table. `when` and `acts`: what stands before the table in its definition, and after it."""

    table: str
    name: str
    when: str
    acts: str

    @property
    def statement(self) -> str:
        return f"CREATE TRIGGER {self.name} {self.when} ON {self.table} {self.acts}"


def _noting(table: str, of: str, rows: str, calls: str) -> Trigger:
    acts = f"REFERENCING {rows} FOR EACH STATEMENT EXECUTE FUNCTION {calls}"
    return Trigger(table, f"note_{of.lower()}", f"AFTER {of}", acts)


def _keeping(table: str, columns: str, calls: str) -> Trigger:
    when = f"BEFORE INSERT OR UPDATE OF {columns}"
    return Trigger(table, "keep_what_was_said", when, f"FOR EACH ROW EXECUTE FUNCTION {calls}")


def _declared() -> Iterator[Trigger]:
    for table, (kind, column) in _NOTED_AS.items():
        for of, rows in _ROWS.items():
            if table is imported.repositories and of == "UPDATE":  # each sync moves marks in the row
                yield _noting(table.name, of, f"OLD TABLE AS before {rows}", "note_changed_repositories()")
            else:
                yield _noting(table.name, of, rows, f"note_changed_rows('{kind}', '{column}')")
    yield _noting(people.users.name, "UPDATE", "NEW TABLE AS changed", "note_changed_people()")
    yield _keeping(imported.users.name, "name, nickname, email", "keep_users()")
    yield _keeping(imported.pull_comments.name, "content", "keep_comments()")


TRIGGERS = tuple(_declared())


def create_function(name: str) -> str:
    """The statement that makes one of `FUNCTIONS`, or replaces it."""
    body = " ".join(FUNCTIONS[name].split())
    return f"CREATE OR REPLACE FUNCTION public.{name}() RETURNS trigger LANGUAGE plpgsql AS $${body}$$"


@event.listens_for(metadata, "after_create")
def _create(_: MetaData, connection: Connection, **_more: object) -> None:
    for statement in (*map(create_function, FUNCTIONS), *(trigger.statement for trigger in TRIGGERS)):
        connection.execute(text(statement))
