"""What the documentation says of the code."""

from pathlib import Path

from dx_dagster.settings import Settings


def test_every_variable_is_described():
    described = (Path(__file__).parent.parent / "docs" / "configuration.md").read_text()
    variables = {str(field.alias) for field in Settings.model_fields.values()}
    assert {name for name in variables if f"`{name}`" not in described} == set()
