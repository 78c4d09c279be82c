"""What the checks of assets know: how far they have looked, what is broken, and what Dagster was told."""

from sqlalchemy import Column, Table, Text, Uuid

from dx_dagster.warehouse.schema.columns import flag, metadata, number, text, time_of_insert, uuid_key

check_marks = Table(
    "check_marks",
    metadata,
    uuid_key("bitbucket_workspaces.id", "workspace_id"),
    Column("asset", Text, primary_key=True, comment="Key of the asset"),
    number("checked_to", "Changes of transactions with smaller numbers are checked", nullable=False),
    number("rows", "Rows of the workspace at the last check"),
    comment="How far the rows of each asset are checked, by workspace",
)

check_faults = Table(
    "check_faults",
    metadata,
    uuid_key("bitbucket_workspaces.id", "workspace_id"),
    Column("asset", Text, primary_key=True, comment="Key of the asset"),
    Column("name", Text, primary_key=True, comment="Name of the check"),
    Column("id", Uuid, primary_key=True, comment="Id of what breaks it: it is looked at again at each check"),
    comment="What breaks a check",
)

check_reports = Table(
    "check_reports",
    metadata,
    Column("workspace", Text, primary_key=True, comment="Slug of the workspace, and its partition"),
    Column("asset", Text, primary_key=True, comment="Key of the asset"),
    Column("name", Text, primary_key=True, comment="Name of the check"),
    flag("passed", "Whether it passed", default=False),
    text("said", "The sentence that Dagster was told", nullable=False),
    time_of_insert("reported_at", "When Dagster was told"),
    comment="The results of the checks of workspaces that Dagster knows: it is told when they change, and once a day",
)
