"""Bounds of workspaces, ends without a closing update, runs that are run again, syncs that could read nothing."""

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from alembic import op

revision: str = "0008"
down_revision: str | None = "0007"
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None

_TIME = sa.DateTime(timezone=True)
_NEW: dict[str, list[sa.Column[Any]]] = {
    "bitbucket_workspaces": [
        sa.Column("since", _TIME, comment="Lower bound of the import (--since): pull requests, pipelines and commits before it are left out"),
        sa.Column("rules", sa.Integer(), comment="Version of the rules by which the durations of its pull requests were last derived"),
    ],
    "bitbucket_users": [sa.Column("counted_as", sa.Text(), comment="The type with which this user counts in the durations of pull requests")],
    "bitbucket_pulls": [sa.Column("open_to_first_bot_review", sa.Double(), comment="As open_to_first_review, by a bot")],
    "bitbucket_pipelines": [
        sa.Column("run_number", sa.Integer(), comment="How often it has run: failed steps that are run again keep the uuid and the date"),
        sa.Column("stage", sa.Text(), comment="Of a run in progress: RUNNING, PAUSED while it waits for a manual step, or HALTED"),
        sa.Column("asked_at", _TIME, server_default=sa.text("now()"), comment="When it was first met, or last asked for by itself"),
    ],
    "sync_marks": [
        sa.Column("bound", _TIME, comment="Everything from here on is stored (--since); null for all"),
        sa.Column("walk_bound", _TIME, comment="What bound becomes when the walk under way ends"),
        sa.Column("older", sa.Text(), comment="Where the feed goes on with entries before the bound (activity)"),
        sa.Column("listed_at", _TIME, comment="When all open pull requests, or the pipelines of the last days, were last listed again"),
    ],
    "pull_marks": [
        sa.Column("refused_since", _TIME, comment="When Bitbucket first refused something of it; null when it did not"),
        sa.Column("refused_at", _TIME, comment="When Bitbucket last refused something of it"),
        sa.Column("refused_for", _TIME, comment="updated_at of the pull request that was refused then"),
    ],
    "connections": [
        sa.Column("last_error", sa.Text(), comment="Why the last sync could read nothing; null when it could"),
        sa.Column("failed_at", _TIME, comment="When a sync last could read nothing; null once one could"),
        sa.Column("failing_since", _TIME, comment="When the first of these syncs did; null once one could"),
    ],
}
_COMMENTS = {
    ("bitbucket_pulls", "merged_at"): ("When it was merged, from its activity", "When it was merged: its activity says so, else its last change or its merge commit"),
    ("bitbucket_pulls", "closed_at"): ("When it was merged, declined or superseded, from its activity", "When it was merged, declined or superseded"),
    ("bitbucket_pulls", "open_to_first_review"): (
        "Seconds to the first comment, approval or change request of someone else",
        "Seconds from created_at to the first comment, approval or change request by a person other than the author, at or before the end",
    ),
    ("bitbucket_pulls", "open_to_first_approval"): ("Seconds to the first approval of someone else", "Likewise, to the first approval"),
    ("sync_marks", "since"): ("Lower bound of the first walk (--since); null for all", "From when on the feed tells everything (activity)"),
    ("connections", "last_synced_at"): ("When a sync last completed", "When a sync last succeeded"),
}

# Until now, --since held for the first walk of each repository only. What all of them hold is from the latest of these
# on, which is what the workspace is bounded by now.
_BOUND = """
    UPDATE bitbucket_workspaces w SET since = marks.since
    FROM (SELECT r.workspace_id, max(m.since) AS since
          FROM sync_marks m JOIN bitbucket_repositories r ON r.id = m.repository_id
          WHERE m.kind IN ('pullrequests', 'commits', 'pipelines') GROUP BY r.workspace_id) marks
    WHERE marks.workspace_id = w.id"""
_BOUNDS_OF_MARKS = """
    UPDATE sync_marks m SET bound = CASE WHEN m.kind = 'activity' THEN w.since ELSE m.since END,
                            walk_bound = CASE WHEN m.kind = 'activity' THEN w.since ELSE m.since END,
                            since = CASE WHEN m.kind = 'activity' THEN m.since END
    FROM bitbucket_repositories r JOIN bitbucket_workspaces w ON w.id = r.workspace_id
    WHERE r.id = m.repository_id"""

# Names that differ in upper and lower case only are one workspace at Bitbucket. The connection that was synced last
# stays, and takes over credentials and webhook secrets.
_TWINS = """
    CREATE TEMPORARY TABLE twins ON COMMIT DROP AS
    SELECT id, first_value(id) OVER same AS kept
    FROM connections WHERE deleted_at IS NULL
    WINDOW same AS (PARTITION BY lower(workspace), type ORDER BY last_synced_at DESC NULLS LAST, id)"""
_MERGE_TWINS = (
    "UPDATE credentials c SET connection_id = kept FROM twins WHERE twins.id = c.connection_id AND twins.id <> kept",
    "UPDATE webhook_secrets s SET connection_id = kept FROM twins WHERE twins.id = s.connection_id AND twins.id <> kept",
    "UPDATE connections c SET deleted_at = now() FROM twins WHERE twins.id = c.id AND twins.id <> kept",
    "DROP TABLE twins",
)
# Only names that somebody types are compared without regard to case; all tables spell a workspace as its connection does.
_RESPELL = (
    "UPDATE {table} t SET {column} = c.workspace FROM connections c WHERE c.type = 'bitbucket' AND c.deleted_at IS NULL "
    "AND lower(t.{column}) = lower(c.workspace) AND t.{column} <> c.workspace"
)
_SPELLED = (("bitbucket_workspaces", "slug"), ("webhook_events", "workspace"), ("connections", "workspace"))


def upgrade() -> None:
    for table, columns in _NEW.items():
        for column in columns:
            op.add_column(table, column)
    for (table, name), (before, now) in _COMMENTS.items():
        op.alter_column(table, name, comment=now, existing_comment=before)
    op.create_table(
        "absence_checks",
        sa.Column("subject_id", sa.Uuid(), primary_key=True, comment="id of a repository, a user or a pull request"),
        sa.Column("missing_since", _TIME, nullable=False, comment="When a listing first was found to lack it"),
        sa.Column("asked_at", _TIME, nullable=False, comment="When Bitbucket was last asked for it by itself"),
        comment="What suspicious listings lacked: asked for by itself, a few at each sync, those asked longest ago first",
    )
    op.execute("UPDATE bitbucket_users SET counted_as = type")
    op.execute(_BOUND)
    op.execute(_BOUNDS_OF_MARKS)
    for statement in (_TWINS, *_MERGE_TWINS):
        op.execute(statement)
    for table, name in _SPELLED:
        op.execute(_RESPELL.format(table=table, column=name))
    op.drop_index("uq_connections_workspace_type", "connections")
    op.create_index("uq_connections_workspace_type", "connections", [sa.text("lower(workspace)"), "type"], unique=True, postgresql_where=sa.text("deleted_at IS NULL"))


def downgrade() -> None:
    op.drop_table("absence_checks")
    op.drop_index("uq_connections_workspace_type", "connections")
    op.create_index("uq_connections_workspace_type", "connections", ["workspace", "type"], unique=True, postgresql_where=sa.text("deleted_at IS NULL"))
    op.execute("UPDATE sync_marks SET since = bound WHERE kind <> 'activity'")
    for (table, name), (before, now) in _COMMENTS.items():
        op.alter_column(table, name, comment=before, existing_comment=now)
    for table, columns in _NEW.items():
        for column in columns:
            op.drop_column(table, column.name)
