"""The files of deploy/: what they name exists."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml

from dx_dagster.cli.app import app
from dx_dagster.settings import Settings

ROOT = Path(__file__).parent.parent
DEPLOY = ROOT / "deploy"


def values(node: Any, key: str) -> Iterator[Any]:
    """The values of that key, at any depth."""
    if isinstance(node, dict):
        for name, value in node.items():
            if name == key:
                yield value
            yield from values(value, key)
    elif isinstance(node, list):
        for value in node:
            yield from values(value, key)


@pytest.mark.parametrize(("file", "key", "expected"), [("compose.yaml", "command", 4), ("kubernetes.yaml", "args", 6)])
def test_containers_run_commands_that_exist_with_settings_that_exist(file, key, expected):
    text = (DEPLOY / file).read_text()
    documents = list(yaml.safe_load_all(text))
    commands = list(values(documents, key))
    assert len(commands) == expected
    group = typer.main.get_command(app)
    for name, *options in commands:
        command = group.commands[name]  # type: ignore[attr-defined]
        command.make_context(name, list(options))  # it raises where an option is unknown
    aliases = {str(field.alias) for field in Settings.model_fields.values()}
    assert set(re.findall(r"\bDX_[A-Z_]+", text)) - aliases == set()


def test_an_image_has_what_the_tests_have_without_their_tools():
    def locked(path: Path) -> set[str]:
        return set(re.findall(r"^\S+==\S+|--hash=\S+", path.read_text(), re.MULTILINE))

    ours, image = locked(ROOT / "requirements.lock"), locked(DEPLOY / "requirements.lock")
    assert image <= ours, "run: make lock"
    assert {one.partition("==")[0] for one in image} & {"pytest", "mypy", "ruff", "playwright"} == set()
