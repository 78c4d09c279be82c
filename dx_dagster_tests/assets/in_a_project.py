"""What a person does in a Dagster project of their own with the component, in one process: a command of `dg` costs
three seconds of CPU alone. Run in the project's folder; prints a JSON object.
"""

import json
import logging
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dagster as dg
from click.testing import CliRunner
from dagster_dg_cli.cli import create_dg_cli

SECOND = """\
type: dx_dagster.BitbucketWorkspaces

attributes:
  database: "{{ env.HOST_DATABASE }}"
  secret_keys: "{{ env.HOST_KEYS }}"
  bitbucket_api_url: "{{ env.HOST_API }}"
  key_prefix: [teams, second]
  group: engineering
  owners: ["team:ops"]
  workspaces: ["beta-*"]
  pipelines: false
  checks: false
  schedules: [hourly_sync]
  sensors: false
  translation:
    key: "{{ '/'.join(spec.key.path) }}_of_{{ asset.kind }}"
    tags: {domain: engineering}
"""
DOWNSTREAM = """\
import dagster as dg


@dg.asset(deps=[dg.AssetKey(["first", "bitbucket", "pullrequests"])])
def review_report() -> None: ...
"""


def dg_command(*arguments: str) -> str:
    done = CliRunner().invoke(create_dg_cli(), arguments)  # type: ignore[no-untyped-call]
    assert done.exit_code == 0, (arguments, done.output, done.exception)
    return done.output


def main(project: Path) -> dict[str, Any]:
    warnings: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: warnings.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger("dx_dagster").addHandler(handler)
    found: dict[str, Any] = {
        "warnings": warnings,
        "components": json.loads(dg_command("list", "components", "--json"))["items"],
    }
    dg_command("scaffold", "defs", "dx_dagster.BitbucketWorkspaces", "first")
    defs = project / "src" / "host" / "defs"
    scaffolded = (defs / "first" / "defs.yaml").read_text()
    for ours, theirs in (("DX_DATABASE_URL }}", "HOST_DATABASE }}"), ("DX_SECRET_KEYS }}", "HOST_KEYS }}")):
        assert ours in scaffolded
        scaffolded = scaffolded.replace(ours, theirs)
    (defs / "first" / "defs.yaml").write_text(scaffolded + '  bitbucket_api_url: "{{ env.HOST_API }}"\n')
    (defs / "second").mkdir()
    (defs / "second" / "defs.yaml").write_text(SECOND)
    (defs / "report.py").write_text(DOWNSTREAM)
    dg_command("check", "yaml")
    dg_command("check", "defs")

    loaded = dg.load_from_defs_folder(path_within_project=project / "src" / "host")
    graph, repository = loaded.resolve_asset_graph(), loaded.get_repository_def()
    found["assets"] = {
        key.to_user_string(): {
            "group": (node := graph.get(key)).group_name,
            "owners": node.owners,
            "tags": {name: value for name, value in node.tags.items() if not name.startswith("dagster/")},
            "partitions": getattr(node.partitions_def, "name", None),
            "parents": sorted(parent.to_user_string() for parent in node.parent_keys),
        }
        for key in graph.get_all_asset_keys()
    }
    found["names"] = {
        "jobs": sorted(set(repository.job_names) - {"__ASSET_JOB"}),
        "schedules": sorted(one.name for one in repository.schedule_defs),
        "sensors": sorted(one.name for one in repository.sensor_defs),
        "resources": sorted(repository.get_top_level_resources()),
    }
    found["checked"] = sorted({key.asset_key.to_user_string() for key in graph.asset_check_keys})
    jobs = [loaded.resolve_job_def(name) for name in found["names"]["jobs"]]
    found["ops"] = sorted({node.name for job in jobs for node in job.nodes})
    found["executor of the project"] = loaded.resolve_implicit_global_asset_job_def().executor_def.name
    found["run"] = run(loaded)
    return found


def run(loaded: dg.Definitions) -> dict[str, Any]:
    """The first ticks, and what they ask for."""
    with dg.instance_for_test() as instance:
        tick: Any = loaded.resolve_sensor_def("first_webhook_events")(dg.build_sensor_context(instance=instance))
        (added,) = tick.dynamic_partitions_requests
        instance.add_dynamic_partitions(added.partitions_def_name, added.partition_keys)
        now = datetime.now(UTC)
        asked: dict[str, Any] = {
            schedule: loaded.resolve_schedule_def(schedule)(
                dg.build_schedule_context(instance=instance, scheduled_execution_time=now)
            )
            for schedule in ("first_hourly_sync", "second_hourly_sync")
        }
        partitions = {name: instance.get_dynamic_partitions(name) for name in ("first_workspaces", "workspaces")}
    (request,) = asked["first_hourly_sync"]
    with dg.DagsterInstance.ephemeral() as instance:  # which is faster, but has no ticks of schedules
        instance.add_dynamic_partitions("first_workspaces", ["acme"])
        quiet = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
        done = loaded.resolve_job_def("first_sync_workspace").execute_in_process(
            instance=instance,
            partition_key=request.partition_key,
            tags=request.tags,
            run_config=request.run_config | quiet,
            raise_on_error=False,
        )
        return {
            "partitions": partitions,
            "second": repr(asked["second_hourly_sync"]),
            "tags": request.tags,
            "succeeded": done.success,
            "materialized": sorted(
                {
                    event.asset_key.to_user_string()
                    for event in done.get_asset_materialization_events()
                    if event.asset_key
                }
            ),
            "checks": {one.asset_key.path[0]: one.passed for one in done.get_asset_check_evaluations()},
            "events": [str(event) for event in done.all_events],
        }


if __name__ == "__main__":
    sys.stdout.write(json.dumps(main(Path.cwd())))
