"""`pull_request_issues`: one row for each issue that a pull request names in its title or source branch.

Keys are as Jira makes them. A project key has two characters or more: capital letters, digits and underscores, a letter
first. A hyphen follows, and a number without leading zeros. A key in lower case is none: Bitbucket links only capital
letters (BCLOUD-9615, BCLOUD-16614).
"""

from psycopg.sql import SQL

from dx_dagster.insights.building import Build
from dx_dagster.insights.changes import Scope, find_pulls
from dx_dagster.insights.derivation import Derivation, derive
from dx_dagster.warehouse.database import Transaction
from dx_dagster.warehouse.schema import unified

NO_PROJECTS = ("AES", "CRC", "CVE", "CWE", "IEC", "IEEE", "ISO", "MD", "RFC", "RSA", "SHA", "UTF")
"""What stands before a hyphen and a number in names of standards, as UTF-8."""
_KEY = r"(?<![A-Za-z0-9_])([A-Z][A-Z0-9_]+)-([1-9][0-9]*)(?![A-Za-z0-9_])"

ISSUES = Derivation(
    unified.pull_request_issues,
    {"pull_request_id": "n.id", "issue_key": "n.issue_key", "source_table_pull_id": "n.source_table_id"},
    SQL("""FROM (
        SELECT DISTINCT t.id, t.source_table_id, found[1] || '-' || found[2] AS issue_key
        FROM changed_pulls c JOIN pull_requests t ON t.source_table_id = c.id,
        regexp_matches(concat_ws(' ', t.title, t.head_ref), %(key)s, 'g') found
        WHERE found[1] <> ALL(%(no_projects)s)) n"""),
    {
        "n": {
            "id": ("pull_requests.id",),
            "issue_key": ("pull_requests.title", "pull_requests.head_ref"),
            "source_table_id": ("pull_requests.source_table_id",),
        }
    },
    key=("pull_request_id", "issue_key"),
    parameters={"key": _KEY, "no_projects": list(NO_PROJECTS)},
)
_NO_LONGER = """
    DELETE FROM pull_request_issues d USING changed_pulls c, pull_requests t
    WHERE t.source_table_id = c.id AND d.pull_request_id = t.id AND NOT EXISTS (
        SELECT FROM regexp_matches(concat_ws(' ', t.title, t.head_ref), %(key)s, 'g') found
        WHERE found[1] || '-' || found[2] = d.issue_key AND found[1] <> ALL(%(no_projects)s))"""


async def _build(transaction: Transaction, scope: Scope) -> None:
    await find_pulls(transaction, scope)
    await transaction.execute(_NO_LONGER, ISSUES.parameters)
    await derive(transaction, ISSUES, scope.bound)


BUILD = Build(
    "unified/pull_request_issues",
    unified.pull_request_issues,
    after=("unified/pull_requests",),
    derivations=(ISSUES,),
    work=_build,
)
