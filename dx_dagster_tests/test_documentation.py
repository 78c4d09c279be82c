"""What the documentation says of the code."""

import re
from pathlib import Path

from dx_dagster.settings import Settings

TESTS = Path(__file__).parent
DOCS = TESTS.parent / "docs"


def test_every_variable_is_described():
    described = (DOCS / "configuration.md").read_text()
    variables = {str(field.alias) for field in Settings.model_fields.values()}
    assert {name for name in variables if f"`{name}`" not in described} == set()


def test_every_heading_about_the_api_that_the_code_cites_exists():
    headings = set(re.findall(r"^## (.*)$", (DOCS / "bitbucket-api.md").read_text(), re.MULTILINE))
    code = " ".join(path.read_text() for path in (TESTS.parent / "dx_dagster").rglob("*.py"))
    cited = set(re.findall(r'docs/bitbucket-api\.md,\s+"([^"]+)"', code))
    assert cited
    assert cited - headings == set()


def test_every_promise_has_a_test():
    rows = [line for line in (DOCS / "promises.md").read_text().splitlines() if ".py`: " in line]
    assert rows
    for row in rows:
        file, tests = re.findall(r"`(\S+\.py)`: (`.*`)", row)[0]
        code = (TESTS / file).read_text()
        for name in re.findall(r"`(\w+)`", tests):
            assert f"def {name}(" in code, row
