"""What the steps of syncs did, for people."""

from sqlalchemy import Column, Index, Integer, Table, Text

from dx_dagster.warehouse.schema.columns import json, metadata, number, text, time, time_of_insert

sync_steps = Table(
    "sync_steps",
    metadata,
    Column("run_id", Text, primary_key=True, comment="Dagster's run"),
    Column("step", Text, primary_key=True, comment="Name of the asset"),
    text("workspace", "Slug of the workspace", nullable=False),
    text("kind", "sync or reconcile where a schedule started it; null where a person did"),
    time_of_insert("began_at", "When the step began"),
    time("ended_at", "When it ended; null while it runs, and where its process was killed"),
    number("done", "Items done", Integer),
    number("total", "Items to do, as far as that is known", Integer),
    text("counted", "What the items are, such as repositories"),
    number("requests", "Requests sent", Integer),
    number("inserted", "Rows inserted"),
    number("updated", "Rows updated"),
    json("skipped", "What could not be imported: repository and reason of each", "[]"),
    text("error", "Why it failed"),
    Index("ix_sync_steps_workspace_began_at", "workspace", "began_at"),
    comment="What each step of the syncs of the last weeks did",
)
