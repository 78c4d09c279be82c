"""The values of a report's variables: moments and ids that the filters of the page leave."""

from collections.abc import Iterable, Mapping, Sequence

from dx_dagster.insights.reading import MeasuredScope, Weeks
from dx_dagster.insights.reports.variables import IDS, OTHER_IDS, Values
from dx_dagster.warehouse.database import Transaction

_ALL = {
    "repo_ids": "SELECT id FROM repos ORDER BY id",
    "team_ids": "SELECT id FROM dx_teams WHERE deleted_at IS NULL ORDER BY id",
    "user_ids": "SELECT id FROM dx_users WHERE merged_into_id IS NULL ORDER BY id",
}
_OF_TEAM = {
    "team_ids": "SELECT descendant_id AS id FROM dx_team_hierarchies WHERE ancestor_id = %(scope_id)s::bigint",
    "user_ids": """
        SELECT u.id FROM dx_users u JOIN dx_team_hierarchies h ON h.descendant_id = u.team_id
        WHERE h.ancestor_id = %(scope_id)s::bigint""",
}
_OF_WORKSPACE = {
    "repo_ids": """
        SELECT o.id FROM repos o JOIN bitbucket_repositories r ON r.id = o.source_table_id
        WHERE r.workspace_id = %(scope_id)s::uuid""",
}
_OF_REPOSITORY = {"repo_ids": "SELECT %(scope_id)s::bigint AS id"}
_OF = {"team": _OF_TEAM, "workspace": _OF_WORKSPACE, "repository": _OF_REPOSITORY}


async def values(
    transaction: Transaction,
    of: MeasuredScope | None,
    weeks: Weeks,
    zone: str,
    *,
    names: Iterable[str],
    is_only_workspace: bool,
    defaults: Mapping[str, Sequence[str]],
) -> Values:
    """The values of the variables `names`. Nothing is filtered by the only workspace that there is.

    The first moment is that at which the first week begins, the last one the last microsecond of the last week.
    """
    scope = {} if of is None or (of.scope == "workspace" and is_only_workspace) else _OF[of.scope]
    scope_id = "" if of is None else of.scope_id
    chosen, every = {}, {}
    for name in IDS & frozenset(names):
        if name in scope:
            rows = await transaction.rows(scope[name], {"scope_id": scope_id})
            chosen[name] = [row.id for row in rows]
        else:
            every[name] = [row.id for row in await transaction.rows(_ALL[name])]
    dates = {
        "start_date": f"{weeks.first} 00:00:00 {zone}",
        "end_date": f"{weeks.last_day} 23:59:59.999999 {zone}",
    }
    return Values(dates, chosen, every | dict.fromkeys(OTHER_IDS, ()), defaults)
