"""What must hold of the rows of each asset, as queries for what breaks it.

A rule looks at things of one kind (pull requests, pipelines and so on) whose ids are in the temporary table `to_check`,
and selects the ids of those that break it. So a check costs as much as there are changes.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from psycopg.sql import SQL, Composed, Identifier
from sqlalchemy import Table

from dx_dagster.warehouse.schema import bitbucket, measures, people, unified
from dx_dagster.warehouse.schema.measures import BUSINESS_HOURS, DURATIONS

Kind = Literal["pull", "pipeline", "deployment", "repository", "user", "workspace"]

KEYS, RELATIONS, TIMES = "keys_are_unique", "relations_hold", "times_are_in_order"
MERGED_AT, COMMENT_COUNTS, SOURCE = "merged_at_is_known", "comment_counts_agree", "rows_match_source"
NOT_FEWER, SYNCED, INBOX = "rows_are_not_fewer", "synced_lately", "inbox_is_applied"
SIZES, PERCENTILES = "sizes_are_whole", "percentiles_are_in_order"

_MATERIALIZE = "Materialize the asset with `full` on"
_IMPORT_PEOPLE = "Run `dx-dagster people import` with the file of people again."
_FETCH = "Fetch everything again with `dx-dagster sync WORKSPACE --full`"


@dataclass(frozen=True)
class Check:
    """One check of one asset.

    Attributes:
        name: of the check.
        holds: what must hold, as a sentence.
        broken: what is wrong with each thing that breaks it.
        remedy: what to do then, as a sentence.
        severe: whether figures are wrong then.
    """

    name: str
    holds: str
    broken: str
    remedy: str
    severe: bool = False


CHECKS: dict[str, Check] = {
    one.name: one
    for one in (
        Check(KEYS, "Natural keys are unique.", "has a key twice", f"{_FETCH}.", severe=True),
        Check(RELATIONS, "Every row's parent is stored.", "has rows without a parent", f"{_FETCH}.", severe=True),
        Check(
            TIMES,
            "No end is before its beginning.",
            "ends before it begins",
            "Compare it with Bitbucket: where Bitbucket shows the same times, leave it out of durations.",
        ),
        Check(
            MERGED_AT,
            "Every merged pull request has merged_at.",
            "is MERGED without merged_at",
            "Its activity may be unreadable: look for skipped repositories in the last run of bitbucket/activity.",
        ),
        Check(
            COMMENT_COUNTS,
            "Stored comments are as many as Bitbucket counts.",
            "has another number of comments than Bitbucket counts",
            f"{_FETCH}; where it stays, Bitbucket's own count is off.",
        ),
        Check(
            SIZES,
            "Additions, deletions and changed files are known together.",
            "has a size in part",
            f"{_MATERIALIZE}.",
        ),
        Check(
            PERCENTILES,
            "Each median is at most its 75th percentile, and that at most its 90th.",
            "has percentiles out of order",
            f"{_MATERIALIZE}.",
            severe=True,
        ),
        Check(
            SOURCE,
            "Every imported row has its row here, and no other has one.",
            "differs from its imported rows",
            f"{_MATERIALIZE}.",
            severe=True,
        ),
        Check(
            NOT_FEWER,
            "Rows are not fewer than at the last check: what is deleted in Bitbucket is marked, not removed.",
            "",
            f"Somebody deleted rows, or a repository moved to another workspace. {_FETCH}.",
        ),
        Check(
            SYNCED,
            "The workspace was synced within three times DX_SYNC_EVERY.",
            "",
            "See `dx-dagster status` and the failed runs of sync_workspace.",
        ),
        Check(
            INBOX,
            "No delivery has waited for more than ten minutes.",
            "",
            "See the failed runs of refresh_workspaces and `dx-dagster webhooks status`.",
        ),
    )
}


@dataclass(frozen=True)
class Checked:
    """How the rows of one asset are checked.

    Attributes:
        asset: key of the asset.
        table: its table, or the one that leads to its rows.
        kind: what its checks look at. A workspace is looked at each time, for rows that belong to none.
        column: the table's column with the ids of these.
        rules: for each check a query for what breaks it.
        kept: whether rows are never removed, so that fewer of them are a fault.
        remedy: what to do about any fault, where that is something else than for other assets.
    """

    asset: str
    table: Table
    kind: Kind
    column: str
    rules: Mapping[str, Composed]
    kept: bool = True
    remedy: str = ""

    @property
    def checks(self) -> tuple[Check, ...]:
        names = [*self.rules, *([NOT_FEWER] if self.kept else [])]
        return tuple(self.check(name) for name in names)

    def check(self, name: str) -> Check:
        return replace(CHECKS[name], remedy=self.remedy) if self.remedy else CHECKS[name]


def _twice(table: Table, column: str, *key: str, where: str = "true") -> Composed:
    """Things with rows whose key another row of the table has too."""
    return SQL("""
        SELECT s.id FROM to_check s JOIN {table} t ON t.{column} = s.id WHERE {where} AND EXISTS (
            SELECT FROM {table} o WHERE {same} AND o.id <> t.id AND {other})""").format(
        table=Identifier(str(table.name)),
        column=Identifier(column),
        where=SQL(where),
        other=SQL(where.replace("t.", "o.")),
        same=SQL(" AND ").join(SQL("o.{0} = t.{0}").format(Identifier(name)) for name in key),
    )


def _orphans(table: Table, column: str, **parents: Table) -> Composed:
    """Things with rows that name a parent which is not stored; the keywords are columns and what they name."""
    return SQL(" UNION ALL ").join(
        SQL("""
        SELECT s.id FROM to_check s JOIN {table} t ON t.{column} = s.id
        WHERE t.{reference} IS NOT NULL AND NOT EXISTS (SELECT FROM {parent} p WHERE p.id = t.{reference})""").format(
            table=Identifier(str(table.name)),
            column=Identifier(column),
            reference=Identifier(reference),
            parent=Identifier(str(parent.name)),
        )
        for reference, parent in parents.items()
    )


def _backwards(table: Table, column: str, begin: str, *ends: str) -> Composed:
    """Things with rows of which an end is before the beginning."""
    return SQL("SELECT s.id FROM to_check s JOIN {table} t ON t.{column} = s.id WHERE {late}").format(
        table=Identifier(str(table.name)),
        column=Identifier(column),
        late=SQL(" OR ").join(SQL("t.{0} < t.{1}").format(Identifier(end), Identifier(begin)) for end in ends),
    )


def _unmatched(source: Table, of: str, table: Table, link: str, where: str = "true") -> Composed:
    """Things with imported rows (where the condition holds) that lack their derived row."""
    return SQL("""
        SELECT s.id FROM to_check s JOIN {source} t ON t.{of} = s.id
        WHERE {where} AND NOT EXISTS (SELECT FROM {table} u WHERE u.{link} = t.id)""").format(
        source=Identifier(str(source.name)),
        of=Identifier(of),
        table=Identifier(str(table.name)),
        link=Identifier(link),
        where=SQL(where),
    )


def _derived(source: Table, table: Table, link: str = "source_table_id", where: str = "true") -> Composed:
    """Imported rows (where the condition holds) that lack their derived row, and derived ones without an imported."""
    return SQL("""{unmatched} UNION ALL
        SELECT s.id FROM to_check s JOIN {table} u ON u.{link} = s.id
        WHERE NOT EXISTS (SELECT FROM {source} t WHERE t.id = u.{link} AND {where})""").format(
        unmatched=_unmatched(source, "id", table, link, where),
        table=Identifier(str(table.name)),
        source=Identifier(str(source.name)),
        link=Identifier(link),
        where=SQL(where),
    )


def _imported() -> Iterator[Checked]:
    b = bitbucket
    yield Checked(
        "bitbucket/repositories",
        b.repositories,
        "repository",
        "id",
        {
            KEYS: _twice(b.repositories, "id", "workspace_id", "slug", where="t.deleted_at IS NULL"),
            RELATIONS: _orphans(b.repositories, "id", workspace_id=b.workspaces),
        },
    )
    yield Checked(
        "bitbucket/members",
        b.users,
        "user",
        "id",
        {
            KEYS: _twice(b.users, "id", "workspace_id", "account_id"),
            RELATIONS: _orphans(b.users, "id", workspace_id=b.workspaces),
        },
    )
    yield Checked(
        "bitbucket/pullrequests",
        b.pulls,
        "pull",
        "id",
        {
            KEYS: _twice(b.pulls, "id", "repository_id", "source_id"),
            RELATIONS: _orphans(
                b.pulls, "id", repository_id=b.repositories, user_id=b.users, merged_by_user_id=b.users
            ),
            TIMES: _backwards(b.pulls, "id", "created_at", "updated_at", "merged_at", "closed_at"),
            MERGED_AT: SQL(
                "SELECT s.id FROM to_check s JOIN bitbucket_pulls p USING (id) "
                "WHERE p.state = 'MERGED' AND p.merged_at IS NULL"
            ).format(),
        },
    )
    yield Checked(
        "bitbucket/activity",
        b.pull_activities,
        "pull",
        "pull_id",
        {RELATIONS: _orphans(b.pull_activities, "pull_id", pull_id=b.pulls, user_id=b.users)},
        kept=False,
    )
    yield Checked(
        "bitbucket/comments",
        b.pull_comments,
        "pull",
        "pull_id",
        {
            KEYS: _twice(b.pull_comments, "pull_id", "pull_id", "source_id"),
            RELATIONS: _orphans(b.pull_comments, "pull_id", pull_id=b.pulls, user_id=b.users),
            TIMES: _backwards(b.pull_comments, "pull_id", "created_at", "updated_at"),
            COMMENT_COUNTS: SQL("""
                SELECT s.id FROM to_check s JOIN bitbucket_pulls p USING (id)
                JOIN bitbucket_repositories r ON r.id = p.repository_id
                WHERE p.deleted_at IS NULL AND r.deleted_at IS NULL AND r.api_accessible
                AND p.comment_count <> (
                    SELECT count(*) FROM bitbucket_pull_comments c WHERE c.pull_id = p.id AND NOT c.deleted)
                """).format(),
        },
    )
    yield Checked(
        "bitbucket/commits",
        b.pull_commits,
        "pull",
        "pull_id",
        {
            KEYS: _twice(b.pull_commits, "pull_id", "pull_id", "sha"),
            RELATIONS: _orphans(b.pull_commits, "pull_id", pull_id=b.pulls, author_id=b.users),
        },
    )
    yield Checked(
        "bitbucket/pipelines",
        b.pipelines,
        "pipeline",
        "id",
        {
            KEYS: _twice(b.pipelines, "id", "repository_id", "build_number"),
            RELATIONS: _orphans(b.pipelines, "id", repository_id=b.repositories, user_id=b.users),
            TIMES: _backwards(b.pipelines, "id", "created_at", "completed_at"),
        },
    )
    yield Checked(
        "bitbucket/deployments",
        b.deployments,
        "deployment",
        "id",
        {
            KEYS: _twice(b.deployments, "id", "repository_id", "source_id"),
            RELATIONS: _orphans(b.deployments, "id", repository_id=b.repositories),
            TIMES: _backwards(b.deployments, "id", "started_at", "completed_at"),
        },
    )
    yield Checked(
        "bitbucket/reviews",
        b.reviews,
        "pull",
        "pull_id",
        {
            KEYS: _twice(b.reviews, "pull_id", "pull_id", "source_id"),
            RELATIONS: _orphans(b.reviews, "pull_id", pull_id=b.pulls, user_id=b.users),
        },
        kept=False,
    )
    yield Checked(
        "bitbucket/pull_request_sizes",
        b.pulls,
        "pull",
        "id",
        {
            SIZES: SQL(
                "SELECT s.id FROM to_check s JOIN bitbucket_pulls p USING (id) "
                "WHERE num_nulls(p.additions, p.deletions, p.changed_files) NOT IN (0, 3)"
            ).format(),
        },
        kept=False,
    )


def _unified() -> Iterator[Checked]:
    b, u = bitbucket, unified
    yield Checked(
        "unified/repos",
        u.repos,
        "repository",
        "source_table_id",
        {
            KEYS: _twice(u.repos, "source_table_id", "source", "external_id"),
            SOURCE: _derived(b.repositories, u.repos),
        },
    )
    yield Checked(
        "unified/pull_requests",
        u.pull_requests,
        "pull",
        "source_table_id",
        {
            KEYS: _twice(u.pull_requests, "source_table_id", "source_table_repo_id", "external_id"),
            RELATIONS: _orphans(
                u.pull_requests,
                "source_table_id",
                repo_id=u.repos,
                dx_user_id=people.users,
                merged_by_user_id=people.users,
            ),
            TIMES: _backwards(u.pull_requests, "source_table_id", "created", "closed", "merged", "updated"),
            SOURCE: _derived(b.pulls, u.pull_requests),
        },
    )
    for asset, table, source in (
        ("unified/pull_request_reviews", u.pull_request_reviews, b.reviews),
        ("unified/pull_request_commits", u.pull_request_commits, b.pull_commits),
    ):
        yield Checked(
            asset,
            table,
            "pull",
            "source_table_pull_id",
            {
                KEYS: _twice_of_pull_requests(table, "external_id"),
                RELATIONS: _orphans_of_pull_requests(table, repo_id=u.repos, dx_user_id=people.users),
                SOURCE: _derived_of_pull_requests(source, table),
            },
            kept=table is not u.pull_request_reviews,
        )
    yield Checked(
        "unified/pull_request_issues",
        u.pull_request_issues,
        "pull",
        "source_table_pull_id",
        {RELATIONS: _orphans_of_pull_requests(u.pull_request_issues)},
        kept=False,
    )
    yield Checked(
        "unified/pipeline_sources",
        u.pipeline_sources,
        "repository",
        "source_table_id",
        {
            RELATIONS: _orphans(u.pipeline_sources, "source_table_id", source_table_id=b.repositories, repo_id=u.repos),
        },
    )
    yield Checked(
        "unified/pipeline_runs",
        u.pipeline_runs,
        "pipeline",
        "source_table_id",
        {
            RELATIONS: _orphans(
                u.pipeline_runs,
                "source_table_id",
                pipeline_source_id=u.pipeline_sources,
                repo_id=u.repos,
                dx_user_id=people.users,
            ),
            TIMES: _backwards(u.pipeline_runs, "source_table_id", "started_at", "finished_at"),
            SOURCE: _derived(b.pipelines, u.pipeline_runs),
        },
    )
    yield Checked(
        "unified/deployments",
        u.deployments,
        "deployment",
        "source_table_id",
        {
            RELATIONS: _orphans(u.deployments, "source_table_id", service_id=u.repos),
            SOURCE: _derived(b.deployments, u.deployments, where="t.state = 'COMPLETED'"),
        },
        kept=False,
    )
    yield Checked(
        "unified/identities",
        people.identities,
        "user",
        "source_id",
        {
            RELATIONS: _orphans(people.identities, "source_id", dx_user_id=people.users),
            SOURCE: _derived(b.users, people.identities, "source_id"),
        },
    )


def _people() -> Iterator[Checked]:
    of_accounts = SQL("to_check s JOIN identities i ON i.source_id = s.id")
    yield Checked(
        "unified/dx_users",
        people.identities,
        "user",
        "source_id",
        {
            RELATIONS: SQL("""
                SELECT s.id FROM {of_accounts} JOIN dx_users u ON u.id = i.dx_user_id
                WHERE u.merged_into_id IS NOT NULL
                    OR u.team_id IS NOT NULL AND NOT EXISTS (SELECT FROM dx_teams t WHERE t.id = u.team_id)""").format(
                of_accounts=of_accounts
            )
        },
        kept=False,
        remedy=f"{_MATERIALIZE}.",
    )
    yield Checked(
        "unified/dx_user_identifiers",
        people.identities,
        "user",
        "source_id",
        {
            RELATIONS: SQL("""
                SELECT s.id FROM {of_accounts} JOIN account_emails e ON e.user_id = s.id
                JOIN dx_user_identifiers d ON d.kind = 'email' AND d.value = e.email
                WHERE NOT EXISTS (SELECT FROM dx_users u WHERE u.id = d.user_id)""").format(of_accounts=of_accounts)
        },
        kept=False,
        remedy=f"{_MATERIALIZE}.",
    )
    for asset, table, parents in (
        ("unified/dx_teams", people.teams, ("parent_id",)),
        ("unified/dx_team_hierarchies", people.team_hierarchies, ("ancestor_id", "descendant_id")),
    ):
        yield Checked(
            asset,
            table,
            "workspace",
            "id",
            {RELATIONS: _without_team(table, *parents)},
            kept=False,
            remedy=_IMPORT_PEOPLE,
        )


def _without_team(table: Table, *references: str) -> Composed:
    """The workspace where a row of the table, which belongs to none, names a team that is not stored."""
    missing = SQL(" OR ").join(
        SQL("(x.{0} IS NOT NULL AND NOT EXISTS (SELECT FROM dx_teams t WHERE t.id = x.{0}))").format(Identifier(name))
        for name in references
    )
    return SQL("SELECT s.id FROM to_check s WHERE EXISTS (SELECT FROM {table} x WHERE {missing})").format(
        table=Identifier(str(table.name)), missing=missing
    )


# The parts of a unified pull request are found by its number: their index begins with that.
_OF_PULL_REQUESTS = SQL(
    "to_check s JOIN pull_requests r ON r.source_table_id = s.id JOIN {table} t ON t.pull_request_id = r.id"
)


def _twice_of_pull_requests(table: Table, key: str) -> Composed:
    return SQL("""
        SELECT s.id FROM {rows} GROUP BY s.id, t.pull_request_id, t.{key} HAVING count(*) > 1""").format(
        rows=_OF_PULL_REQUESTS.format(table=Identifier(str(table.name))), key=Identifier(key)
    )


def _orphans_of_pull_requests(table: Table, **parents: Table) -> Composed:
    rows = _OF_PULL_REQUESTS.format(table=Identifier(str(table.name)))
    found = SQL(
        "SELECT s.id FROM {rows} WHERE t.{reference} IS NOT NULL "
        "AND NOT EXISTS (SELECT FROM {parent} p WHERE p.id = t.{reference})"
    )
    others = [
        found.format(rows=rows, reference=Identifier(reference), parent=Identifier(str(parent.name)))
        for reference, parent in parents.items()
    ]
    elsewhere = SQL("SELECT s.id FROM {rows} WHERE t.source_table_pull_id <> s.id").format(rows=rows)
    return SQL(" UNION ALL ").join([elsewhere, *others])


def _derived_of_pull_requests(source: Table, table: Table) -> Composed:
    return SQL("""{unmatched} UNION ALL
        SELECT s.id FROM {rows} WHERE NOT EXISTS (SELECT FROM {source} p WHERE p.id = t.source_table_id)""").format(
        unmatched=_unmatched(source, "pull_id", table, "source_table_id"),
        rows=_OF_PULL_REQUESTS.format(table=Identifier(str(table.name))),
        source=Identifier(str(source.name)),
    )


_SPREADS = (*DURATIONS, *(f"{name}{BUSINESS_HOURS}" for name in DURATIONS), "pipeline_duration")
_OUT_OF_ORDER = " OR ".join(f"w.{name}_median > w.{name}_p75 OR w.{name}_p75 > w.{name}_p90" for name in _SPREADS)


# The keys of measures are unique by their indexes.
def _measures() -> Iterator[Checked]:
    yield Checked(
        "measures/pull_requests",
        measures.pull_request_measures,
        "pull",
        "source_table_id",
        {SOURCE: _derived(bitbucket.pulls, measures.pull_request_measures)},
        kept=False,
        remedy=f"{_MATERIALIZE}.",
    )
    yield Checked(
        "measures/weeks",
        measures.weekly_measures,
        "workspace",
        "workspace_id",
        {
            PERCENTILES: SQL("""
                SELECT s.id FROM to_check s
                WHERE EXISTS (SELECT FROM weekly_measures w WHERE w.workspace_id = s.id AND ({}))""").format(
                SQL(_OUT_OF_ORDER)
            ),
        },
        kept=False,
        remedy=f"{_MATERIALIZE}.",
    )


CHECKED: dict[str, Checked] = {one.asset: one for one in (*_imported(), *_unified(), *_people(), *_measures())}
