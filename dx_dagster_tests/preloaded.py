"""What a forked command finds loaded: `dx_dagster_tests.commands` says why."""

import gc
import sys

import alembic.command  # noqa: F401
import dagster_postgres  # noqa: F401
import orjson  # noqa: F401
import tenacity  # noqa: F401

import dx_dagster.assets.bitbucket
import dx_dagster.assets.ours
import dx_dagster.cli
import dx_dagster.cli.doctor_checks
import dx_dagster.cli.progress
import dx_dagster.cli.sync
import dx_dagster.connections.actions
import dx_dagster.insights.unified
import dx_dagster.resources
import dx_dagster.warehouse.migrations  # noqa: F401

# Not the jobs: they read the environment. polars' threads would not survive a fork.
assert "polars" not in sys.modules
# A forked process would copy the memory of every object that its garbage collector looks at.
gc.collect()
gc.freeze()
