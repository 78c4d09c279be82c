"""What changed when, for builds that follow changes."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0015"
down_revision: str | None = "0014"
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None

# By table: what its changed rows belong to, and the column that says of which.
WATCHED = {
    "bitbucket_pulls": ("pull", "id"),
    "bitbucket_pull_participants": ("pull", "pull_id"),
    "bitbucket_pull_activities": ("pull", "pull_id"),
    "bitbucket_pull_comments": ("pull", "pull_id"),
    "bitbucket_pull_commits": ("pull", "pull_id"),
    "bitbucket_reviews": ("review", "pull_id"),
    "bitbucket_repository_default_branch_commits": ("branch", "repository_id"),
    "bitbucket_pipelines": ("pipeline", "id"),
    "bitbucket_deployments": ("deployment", "id"),
    "bitbucket_environments": ("environment", "id"),
    "bitbucket_users": ("user", "id"),
    "account_emails": ("address", "user_id"),
    "identities": ("user", "source_id"),
}
NOTE = """
    CREATE FUNCTION public.note_changed_rows() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        IF EXISTS (SELECT FROM changed) THEN
            EXECUTE format('
                INSERT INTO public.changed_rows (kind, id, changed_in)
                SELECT DISTINCT %L, %I, pg_current_xact_id()::text::bigint FROM changed
                ORDER BY 2 ON CONFLICT (kind, id) DO UPDATE SET changed_in = EXCLUDED.changed_in
                WHERE changed_rows.changed_in <> EXCLUDED.changed_in', TG_ARGV[0], TG_ARGV[1]);
        END IF;
        RETURN NULL;
    END $$"""
# Each sync moves a repository's marks: only these columns count as a change.
NOTE_REPOSITORIES = """
    CREATE FUNCTION public.note_changed_repositories() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        INSERT INTO public.changed_rows (kind, id, changed_in)
        SELECT DISTINCT 'repository', id, pg_current_xact_id()::text::bigint FROM (
            SELECT id, workspace_id, name, slug, default_branch, api_accessible, deleted_at FROM changed
            EXCEPT
            SELECT id, workspace_id, name, slug, default_branch, api_accessible, deleted_at FROM before) differing
        ORDER BY 2 ON CONFLICT (kind, id) DO UPDATE SET changed_in = EXCLUDED.changed_in
        WHERE changed_rows.changed_in <> EXCLUDED.changed_in;
        RETURN NULL;
    END $$"""
NOTE_PEOPLE = """
    CREATE FUNCTION public.note_changed_people() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        INSERT INTO public.changed_rows (kind, id, changed_in)
        SELECT DISTINCT 'user', i.source_id, pg_current_xact_id()::text::bigint
        FROM changed JOIN public.identities i ON i.dx_user_id = changed.id
        ORDER BY 2 ON CONFLICT (kind, id) DO UPDATE SET changed_in = EXCLUDED.changed_in
        WHERE changed_rows.changed_in <> EXCLUDED.changed_in;
        RETURN NULL;
    END $$"""
FUNCTIONS = {"note_changed_rows": NOTE, "note_changed_repositories": NOTE_REPOSITORIES, "note_changed_people": NOTE_PEOPLE}


def watch(table: str, event: str, called: str, rows: str) -> None:
    op.execute(
        f"CREATE TRIGGER note_{event.lower()} AFTER {event} ON {table} REFERENCING {rows} "
        f"FOR EACH STATEMENT EXECUTE FUNCTION public.{called}"
    )


def upgrade() -> None:
    op.create_table("changed_rows",
    sa.Column("kind", sa.Text(), nullable=False, comment="pull, review, branch, pipeline, deployment, environment, user, address (of a user) or repository"),
    sa.Column("id", sa.Uuid(), nullable=False, comment="Id of the row, or of what the changed row belongs to"),
    sa.Column("changed_in", sa.BigInteger(), nullable=False, comment="Number of the transaction that last changed it"),
    sa.PrimaryKeyConstraint("kind", "id"),
    comment="What changed last when, by transactions and not by any clock; triggers of the source tables write it"
    )
    op.create_index("ix_changed_rows_changed_in", "changed_rows", ["changed_in"], unique=False)
    op.create_table("build_marks",
    sa.Column("workspace_id", sa.Uuid(), nullable=False, comment="bitbucket_workspaces.id"),
    sa.Column("asset", sa.Text(), nullable=False, comment="Key of the asset"),
    sa.Column("built_to", sa.BigInteger(), nullable=False, comment="Changes of transactions with smaller numbers are in the asset's rows"),
    sa.Column("rules", sa.Text(), nullable=False, comment="By what it was built: version of the rules, and settings that change rows"),
    sa.PrimaryKeyConstraint("workspace_id", "asset"),
    comment="How far each derived asset is built, by workspace; moves only with the rows it vouches for"
    )
    op.create_table("check_marks",
    sa.Column("workspace_id", sa.Uuid(), nullable=False, comment="bitbucket_workspaces.id"),
    sa.Column("asset", sa.Text(), nullable=False, comment="Key of the asset"),
    sa.Column("checked_to", sa.BigInteger(), nullable=False, comment="Changes of transactions with smaller numbers are checked"),
    sa.Column("rows", sa.BigInteger(), nullable=True, comment="Rows of the workspace at the last check"),
    sa.PrimaryKeyConstraint("workspace_id", "asset"),
    comment="How far the rows of each asset are checked, by workspace"
    )
    op.create_table("check_faults",
    sa.Column("workspace_id", sa.Uuid(), nullable=False, comment="bitbucket_workspaces.id"),
    sa.Column("asset", sa.Text(), nullable=False, comment="Key of the asset"),
    sa.Column("name", sa.Text(), nullable=False, comment="Name of the check"),
    sa.Column("id", sa.Uuid(), nullable=False, comment="Id of what breaks it: it is looked at again at each check"),
    sa.PrimaryKeyConstraint("workspace_id", "asset", "name", "id"),
    comment="What breaks a check"
    )
    op.create_table("check_reports",
    sa.Column("workspace", sa.Text(), nullable=False, comment="Slug of the workspace, and its partition"),
    sa.Column("asset", sa.Text(), nullable=False, comment="Key of the asset"),
    sa.Column("name", sa.Text(), nullable=False, comment="Name of the check"),
    sa.Column("passed", sa.Boolean(), server_default=sa.text("false"), nullable=False, comment="Whether it passed"),
    sa.Column("said", sa.Text(), nullable=False, comment="The sentence that Dagster was told"),
    sa.Column("reported_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False, comment="When Dagster was told"),
    sa.PrimaryKeyConstraint("workspace", "asset", "name"),
    comment="The results of the checks of workspaces that Dagster knows: it is told when they change, and once a day"
    )
    for function in FUNCTIONS.values():
        op.execute(function)
    for table, (kind, column) in WATCHED.items():
        noting = f"note_changed_rows('{kind}', '{column}')"
        watch(table, "INSERT", noting, "NEW TABLE AS changed")
        watch(table, "UPDATE", noting, "NEW TABLE AS changed")
        watch(table, "DELETE", noting, "OLD TABLE AS changed")
    watch("bitbucket_repositories", "INSERT", "note_changed_rows('repository', 'id')", "NEW TABLE AS changed")
    watch("bitbucket_repositories", "UPDATE", "note_changed_repositories()", "OLD TABLE AS before NEW TABLE AS changed")
    watch("bitbucket_repositories", "DELETE", "note_changed_rows('repository', 'id')", "OLD TABLE AS changed")
    watch("dx_users", "UPDATE", "note_changed_people()", "NEW TABLE AS changed")


def downgrade() -> None:
    for table in WATCHED:
        for event in ("insert", "update", "delete"):
            op.execute(f"DROP TRIGGER note_{event} ON {table}")
    for event in ("insert", "update", "delete"):
        op.execute(f"DROP TRIGGER note_{event} ON bitbucket_repositories")
    op.execute("DROP TRIGGER note_update ON dx_users")
    for function in FUNCTIONS:
        op.execute(f"DROP FUNCTION public.{function}()")
    op.drop_table("check_reports")
    op.drop_table("check_faults")
    op.drop_table("check_marks")
    op.drop_table("build_marks")
    op.drop_table("changed_rows")
