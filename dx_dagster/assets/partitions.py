"""One partition for each connected workspace, named by its slug."""

import dagster as dg

WORKSPACES = dg.DynamicPartitionsDefinition(name="workspaces")
