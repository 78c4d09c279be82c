"""What the documentation says of the code."""

import re
from pathlib import Path
from typing import get_args

import pytest

from dx_dagster.api.data_cloud.envelope import ErrorCode
from dx_dagster.settings import Settings
from dx_dagster_tests import command_blocks, documents

TESTS = Path(__file__).parent
ROOT = TESTS.parent
DOCS = ROOT / "docs"
PAGES = sorted([ROOT / "README.md", ROOT / "CHANGELOG.md", *DOCS.glob("*.md")])

_BLOCK = re.compile(r"^ *```.*?^ *```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
_FILE = re.compile(r"`([\w./-]+/[\w.-]+\.(?:py|md|yaml|sh|toml|html|mako))(?::|`)")


def by_name(page: Path) -> str:
    return page.name


def without_code(page: Path) -> str:
    return _BLOCK.sub("", page.read_text())


def anchors(page: Path) -> set[str]:
    """As GitHub makes them of headings."""
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in _HEADING.findall(without_code(page))}


def test_every_variable_is_described():
    described = (DOCS / "configuration.md").read_text()
    variables = {str(field.alias) for field in Settings.model_fields.values()}
    assert {name for name in variables if f"| `{name}` |" not in described} == set()


@pytest.mark.parametrize("name", documents.PAGES)
def test_generated_parts_are_what_the_code_gives(name):
    page = (DOCS / name).read_text()
    assert "<!-- generated:" in page
    assert documents.renewed(page) == page, "run: make docs"


def test_every_error_code_has_its_section():
    troubleshooting = (DOCS / "troubleshooting.md").read_text()
    assert {code for code in get_args(ErrorCode) if f"### {code}\n" not in troubleshooting} == set()


@pytest.mark.parametrize("page", PAGES, ids=by_name)
def test_links_lead_somewhere(page):
    for link in _LINK.findall(without_code(page)):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path) if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


@pytest.mark.parametrize("page", PAGES, ids=by_name)
def test_files_that_are_named_exist(page):
    for name in _FILE.findall(without_code(page)):
        places = (ROOT, ROOT / "dx_dagster", TESTS)
        assert name.startswith((".dx/", "DX_HOME/")) or any((place / name).exists() for place in places), name


def test_every_line_of_a_command_block_is_run_by_a_test_or_listed_with_a_reason():
    run = {*command_blocks.IN_THE_DEMO, *command_blocks.WITH_A_TOKEN, *command_blocks.STARTS}
    assert command_blocks.lines() == run | command_blocks.NOT_RUN.keys()
    assert run & command_blocks.NOT_RUN.keys() == set()


def test_every_page_is_reached_from_the_readme():
    readme = (ROOT / "README.md").read_text()
    assert {page.name for page in DOCS.glob("*.md") if f"docs/{page.name}" not in readme} == set()


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
