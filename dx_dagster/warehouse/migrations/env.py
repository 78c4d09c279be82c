"""Alembic's environment, run with the connection of `upgrade`, which holds the migration lock."""

from alembic import context
from alembic.operations import Operations

from dx_dagster.warehouse import schema
from dx_dagster.warehouse.versions import VERSION_TABLE

# 0008 reads tables that databases of some early commits lack; 0009, which makes them, comes later.
_MENDED_BEFORE = "0008"
_MENDER = "0009"

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=schema.metadata,
    version_table=VERSION_TABLE,
    compare_type=True,
)
with context.begin_transaction():
    before = context.get_context().get_current_revision()
    if before is not None and before < _MENDED_BEFORE:
        with Operations.context(context.get_context()):
            context.script.get_revision(_MENDER).module.mend(before)
    context.run_migrations()
