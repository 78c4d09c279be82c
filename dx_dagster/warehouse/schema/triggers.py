"""The triggers and their functions: they note in `changed_rows` what changed, and keep what somebody said.

Derived tables follow `changed_rows`. Without a trigger they would stay as they are, and nothing would say so. Measures
follow unified tables, so these have triggers too. Of what counts in a week, the days are noted, by workspace. What one
build notes is noted by no other one, in whatever order: two that note the same would wait for each other.

A type of an account that somebody set wins over the imported one, and of a forgotten account nothing is stored again,
whoever writes. `ON CONFLICT DO UPDATE` sees the row as the trigger leaves it, so importing the same page again finds no
difference.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from sqlalchemy import Connection, MetaData, event, text

from dx_dagster.warehouse.schema import bitbucket as imported
from dx_dagster.warehouse.schema import measures, people, unified
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
    "note_attributed_pulls": """ BEGIN
        IF TG_TABLE_NAME = 'deployments' THEN
            INSERT INTO public.changed_rows (kind, id, changed_in)
            SELECT DISTINCT 'deployment_pull_requests', t.source_table_id, pg_current_xact_id()::text::bigint
            FROM changed JOIN public.deployment_pull_requests a ON a.deployment_id = changed.id
            JOIN public.pull_requests t ON t.id = a.pull_request_id
            ORDER BY 2 ON CONFLICT (kind, id) DO UPDATE SET changed_in = EXCLUDED.changed_in
            WHERE changed_rows.changed_in <> EXCLUDED.changed_in;
        ELSE
            INSERT INTO public.changed_rows (kind, id, changed_in)
            SELECT DISTINCT 'deployment_pull_requests', t.source_table_id, pg_current_xact_id()::text::bigint
            FROM changed JOIN public.pull_requests t ON t.id = changed.pull_request_id
            ORDER BY 2 ON CONFLICT (kind, id) DO UPDATE SET changed_in = EXCLUDED.changed_in
            WHERE changed_rows.changed_in <> EXCLUDED.changed_in;
        END IF;
        RETURN NULL;
    END """,
    "note_changed_days": """ DECLARE differing text := format('SELECT %s FROM changed', TG_ARGV[1]); BEGIN
        IF EXISTS (SELECT FROM changed) THEN
            IF TG_OP = 'UPDATE' THEN
                differing := format('(SELECT %1$s FROM changed EXCEPT SELECT %1$s FROM before)
                    UNION ALL (SELECT %1$s FROM before EXCEPT SELECT %1$s FROM changed)', TG_ARGV[1]);
            END IF;
            EXECUTE format('
                INSERT INTO public.changed_rows (kind, id, changed_in)
                SELECT DISTINCT %L || to_char(days.at AT TIME ZONE ''UTC'', '' YYYY-MM-DD''), r.workspace_id,
                    pg_current_xact_id()::text::bigint
                FROM (%s) differing CROSS JOIN LATERAL unnest(ARRAY[%s]) days (at)
                JOIN public.repos o ON o.id = differing.%I
                JOIN public.bitbucket_repositories r ON r.id = o.source_table_id
                WHERE days.at IS NOT NULL
                ORDER BY 1, 2 ON CONFLICT (kind, id) DO UPDATE SET changed_in = EXCLUDED.changed_in
                WHERE changed_rows.changed_in <> EXCLUDED.changed_in',
                TG_TABLE_NAME, differing, TG_ARGV[2], TG_ARGV[0]);
        END IF;
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
    unified.pull_requests: ("pull_requests", "source_table_id"),
    unified.pull_request_reviews: ("pull_request_reviews", "source_table_pull_id"),
}
_DURATIONS = ", ".join(f"{name}, {name}{measures.BUSINESS_HOURS}" for name in measures.DURATIONS)
_MEASURES = (
    "pull_request_id, repo_id, dx_user_id, bot_authored, merged, deployed_at, reverted_at, re_reviewed, "
    f"merged_without_review, reverted, ai_named, ai_account, {_DURATIONS}"
)
# Tables that the measures of weeks count: the column with the repository, the columns that count, and the times among
# them, whose days are noted, both those of the old row and those of the new one.
_DATED = {
    measures.pull_request_measures: ("repo_id", _MEASURES, "merged, deployed_at, reverted_at"),
    unified.pull_request_reviews: ("repo_id", "id, repo_id, dx_user_id, bot_authored, by_author, created", "created"),
    unified.pipeline_runs: ("repo_id", "id, repo_id, dx_user_id, status, duration, finished_at", "finished_at"),
    unified.deployments: (
        "service_id",
        "id, service_id, environment, success, rolled_back_at, merge_commit_shas, deployed_at",
        "deployed_at",
    ),
}
_BEFORE = "OLD TABLE AS before"
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


def _noting(table: str, of: str, rows: str, calls: str, what: str = "") -> Trigger:
    acts = f"REFERENCING {rows} FOR EACH STATEMENT EXECUTE FUNCTION {calls}"
    return Trigger(table, f"note_{what}{of.lower()}", f"AFTER {of}", acts)


def _keeping(table: str, columns: str, calls: str) -> Trigger:
    when = f"BEFORE INSERT OR UPDATE OF {columns}"
    return Trigger(table, "keep_what_was_said", when, f"FOR EACH ROW EXECUTE FUNCTION {calls}")


def _declared() -> Iterator[Trigger]:
    for table, (kind, column) in _NOTED_AS.items():
        for of, rows in _ROWS.items():
            if table is imported.repositories and of == "UPDATE":  # each sync moves marks in the row
                yield _noting(table.name, of, f"{_BEFORE} {rows}", "note_changed_repositories()")
            else:
                yield _noting(table.name, of, rows, f"note_changed_rows('{kind}', '{column}')")
    yield _noting(people.users.name, "UPDATE", "NEW TABLE AS changed", "note_changed_people()")
    for table, (repository, columns, times) in _DATED.items():
        for of, rows in _ROWS.items():
            both = f"{_BEFORE} {rows}" if of == "UPDATE" else rows
            calls = f"note_changed_days('{repository}', '{columns}', '{times}')"
            yield _noting(table.name, of, both, calls, "days_at_")
    yield _noting(unified.deployments.name, "UPDATE", _ROWS["UPDATE"], "note_attributed_pulls()")
    for of in ("INSERT", "DELETE"):
        yield _noting(unified.deployment_pull_requests.name, of, _ROWS[of], "note_attributed_pulls()")
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
