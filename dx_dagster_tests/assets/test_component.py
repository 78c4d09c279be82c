"""The component `dx_dagster.BitbucketWorkspaces` in somebody's Dagster project."""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
from hatchling.builders.wheel import WheelBuilder

from dx_dagster.assets.steps import STEPS
from dx_dagster.insights.unified import BUILDS
from dx_dagster.sandbox import Sandbox, WorldConfig
from dx_dagster.settings import Settings, SettingsError
from dx_dagster_tests.importing import KEYS, Installation

ROOT = Path(__file__).parents[2]
PROJECT = {
    "pyproject.toml": """\
[project]
name = "host"
version = "0.1.0"

[tool.dg]
directory_type = "project"

[tool.dg.project]
root_module = "host"
""",
    "dagster.yaml": "telemetry:\n  enabled: false\n",
    "src/host/__init__.py": "",
    "src/host/defs/__init__.py": "",
    "src/host/definitions.py": """\
from pathlib import Path

from dagster import definitions, load_from_defs_folder


@definitions
def defs():
    return load_from_defs_folder(path_within_project=Path(__file__).parent)
""",
}
FROM_THE_TOP = ("dx_dagster/dagster.yaml", "dx_dagster/workspace.yaml")
OF_PIPELINES = {"pipeline_sources", "pipeline_runs", "deployments"}


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """A folder with the metadata that the wheel installs, which name the component.

    The wheel has every file of the checkout's package, whose compiled code saves seconds.
    """
    (built,) = WheelBuilder(str(ROOT)).build(directory=str(tmp_path), versions=["standard"])
    with zipfile.ZipFile(built) as wheel:
        metadata = [name for name in wheel.namelist() if ".dist-info/" in name]
        assert {*wheel.namelist()} - {*metadata} == {*FROM_THE_TOP, *files_of_the_package()}
        wheel.extractall(tmp_path / "installed", metadata)
    return tmp_path / "installed"


def files_of_the_package() -> set[str]:
    listed = subprocess.check_output(["git", "-C", ROOT, "ls-files", "-co", "--exclude-standard", "dx_dagster"])
    return {name for name in listed.decode().splitlines() if (ROOT / name).exists()}


def test_a_project_has_the_component_twice_and_an_asset_downstream(installed, database_url, bare_environment, tmp_path):
    for name, content in PROJECT.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    with Sandbox(WorldConfig(repositories=3, pull_requests=10, members=4)) as sandbox:
        installation = Installation(database_url, sandbox)
        environment = bare_environment | {
            "HOST_DATABASE": database_url,
            "HOST_KEYS": KEYS,
            "HOST_API": sandbox.url,
            # What is here counts for our own code location alone.
            "DX_DATABASE_URL": "postgresql://nobody@127.0.0.1:1/nothing",
            "DX_SYNC_EVERY": "often",
            "DAGSTER_HOME": str(tmp_path),
            "PYTHONPATH": os.pathsep.join(map(str, (installed, ROOT, tmp_path / "src"))),
            "PYTHONWARNINGS": "ignore",
        }
        script = str(Path(__file__).with_name("in_a_project.py"))
        done = subprocess.run(
            [sys.executable, script], env=environment, cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        found = json.loads(done.stdout.splitlines()[-1])
        assert installation.differences() == {}

    assert "dx_dagster.BitbucketWorkspaces" in {one["key"] for one in found["components"]}
    nothing_generic_leaks(found)
    each_component_has_what_it_was_told(found["assets"], found["checked"])
    the_first_syncs_and_the_second_leaves_that_workspace_alone(found["run"], found["checked"])
    each_component_tells_once_what_dagster_yaml_lacks(found["warnings"])
    assert found["executor of the project"] == "multi_or_in_process_executor"


def nothing_generic_leaks(found: dict[str, Any]) -> None:
    ours = [name for names in found["names"].values() for name in names if name != "io_manager"]
    assert ours
    for name in (*ours, *found["ops"], *found["run"]["tags"], *found["run"]["partitions"]["first_workspaces"]):
        assert name.startswith(("first", "second", "dagster/", "acme")), name
    assert {"first_sync_workspace", "second_sync_workspace"} <= set(found["names"]["jobs"])
    assert found["names"]["schedules"] == ["first_hourly_sync", "first_nightly_reconcile", "second_hourly_sync"]
    # An hourly sync is due by what `finished_syncs` records.
    assert [name for name in found["names"]["sensors"] if name.startswith("second")] == ["second_finished_syncs"]
    assert {asset["partitions"] for asset in found["assets"].values()} == {
        None,
        "first_workspaces",
        "second_workspaces",
    }


def each_component_has_what_it_was_told(assets: dict[str, Any], checked: list[str]) -> None:
    report = assets.pop("review_report")
    assert report["parents"] == ["first/bitbucket/pullrequests"]
    steps = STEPS.keys() - {"pull_request_sizes"}
    first = {key for key in assets if key.startswith("first/") and "/api/" not in key}
    assert first == {f"first/bitbucket/{step}" for step in steps} | {f"first/{build.key}" for build in BUILDS}
    second = {key for key in assets if key.startswith("teams/second/")}
    assert first | second | {key for key in assets if key.startswith("first/api/")} == assets.keys()
    left_out = {"pipelines", "deployments"} | OF_PIPELINES
    assert {key.split("/")[-1].rpartition("_of_")[0] for key in second if "/api/" not in key} == {
        *(steps - left_out),
        *({build.key.split("/")[-1] for build in BUILDS} - left_out),
    }
    for key in second:
        assert (assets[key]["group"], assets[key]["owners"]) == ("engineering", ["team:ops"])
        assert assets[key]["tags"] == {"domain": "engineering"}
        assert set(assets[key]["parents"]) <= second
    for key in first:
        assert assets[key]["group"] == f"first_{key.split('/')[1]}"
        assert assets[key]["owners"] == []
        assert set(assets[key]["parents"]) <= assets.keys()
    assert all(key.startswith("first/") for key in checked)


def the_first_syncs_and_the_second_leaves_that_workspace_alone(run: dict[str, Any], checked: list[str]) -> None:
    assert run["partitions"] == {"first_workspaces": ["acme"], "workspaces": []}
    assert run["second"].startswith("SkipReason")
    assert run["succeeded"], run["events"]
    assert {*checked} <= {*run["materialized"]}
    assert "review_report" not in run["materialized"]
    assert run["checks"] == {"first": True}


def each_component_tells_once_what_dagster_yaml_lacks(warnings: list[str]) -> None:
    """Also the second, which nothing runs in this process."""
    for component in ("first", "second"):
        (warning,) = [told for told in warnings if f"component {component}" in told]
        for line in (f"- key: {component}/workspace", f"- key: {component}/background", "run_monitoring:"):
            assert line in warning


def test_settings_without_the_environment_name_the_field_that_is_wrong(monkeypatch):
    monkeypatch.setenv("DX_TIME_ZONE", "Europe/Berlin")
    monkeypatch.setenv("DX_SYNC_EVERY", "often")
    given = Settings.given(database_url="postgresql://h/d", home=None)
    assert (given.time_zone, given.sync_every) == ("UTC", 3600)
    with pytest.raises(SettingsError, match=r"^time_zone is 'Mars', which is not an IANA time zone"):
        Settings.given(time_zone="Mars")
