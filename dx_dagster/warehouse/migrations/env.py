"""Run by Alembic with the connection that `upgrade` holds its lock on."""

from alembic import context

from dx_dagster.warehouse import access, bookkeeping, inbox_tables  # noqa: F401 - their tables join the metadata
from dx_dagster.warehouse.migrations import VERSION_TABLE
from dx_dagster.warehouse.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    version_table=VERSION_TABLE,
    compare_type=True,
)
with context.begin_transaction():
    context.run_migrations()
