"""Which deployment was the first to contain which merge commit, for each environment.

A successful deployment contains its commit and the ancestors of that, as far as the default branch's history is stored.
Of a commit that is not stored it contains that alone. Once attributed, a pull request stays attributed: a rewritten
branch undoes no deployment. It moves only to an earlier one, or when its deployment turns out otherwise.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, groupby
from typing import Any

from psycopg.sql import SQL

from dx_dagster.insights.changes import Scope
from dx_dagster.insights.derivation import Derivation
from dx_dagster.warehouse.database import Transaction
from dx_dagster.warehouse.schema import bitbucket, unified

Commit = int | str  # the number of a stored one, the hash of another
Attributions = set[tuple[int, int]]  # deployments.id and pull_requests.id
SHORT_HASH = 12

# Numbers stand for hashes: an integer takes a third of the memory. Rows of other tables are looked up one by one, by
# their keys (LATERAL and OFFSET): a build of everything joins by reading whole tables, here once for each repository.
_HISTORY = SQL("""
    WITH numbered AS MATERIALIZED (
        SELECT sha, parents, row_number() OVER ()::int - 1 AS number
        FROM bitbucket_repository_default_branch_commits WHERE repository_id = %(repository)s),
    links AS (
        SELECT n.number AS child, p.number AS parent
        FROM numbered n CROSS JOIN unnest(n.parents) AS parents (sha) JOIN numbered p ON p.sha = parents.sha),
    found AS (
        SELECT d.id, COALESCE(t.environment_id::text, '') AS environment, d.commit_sha AS sha, n.number,
               row_number() OVER (ORDER BY t.environment_id, COALESCE(t.completed_at, t.updated_at, t.started_at),
                                           t.started_at, t.id) AS place
        FROM bitbucket_deployments t CROSS JOIN LATERAL (
            SELECT d.id, d.commit_sha, d.success FROM deployments d WHERE d.source_table_id = t.id OFFSET 0) d
        LEFT JOIN numbered n ON n.sha = d.commit_sha
        WHERE t.repository_id = %(repository)s AND d.success AND d.commit_sha IS NOT NULL),
    merges AS (
        SELECT q.id, p.merge_commit_sha AS sha, n.number
        FROM bitbucket_pulls p CROSS JOIN LATERAL (
            SELECT q.id FROM pull_requests q WHERE q.source_table_id = p.id OFFSET 0) q
        LEFT JOIN numbered n ON n.sha = p.merge_commit_sha
        WHERE p.repository_id = %(repository)s AND p.state = 'MERGED' AND p.merge_commit_sha IS NOT NULL)
    SELECT (SELECT count(*) FROM numbered) AS commits, l.*, f.*, m.*
    FROM (SELECT array_agg(child ORDER BY child) AS children, array_agg(parent ORDER BY child) AS parents FROM links) l,
         (SELECT array_agg(id ORDER BY place) AS deployments, array_agg(environment ORDER BY place) AS environments,
                 array_agg(sha ORDER BY place) AS deployed_shas, array_agg(number ORDER BY place) AS deployed
          FROM found) f,
         (SELECT array_agg(id) AS pulls, array_agg(sha) AS merge_shas, array_agg(number) AS merged FROM merges) m""")
_STORED = SQL("""
    SELECT a.deployment_id, a.pull_request_id,
           COALESCE(p.merge_commit_sha = ANY(d.merge_commit_shas), false) AS holds
    FROM bitbucket_deployments t
    CROSS JOIN LATERAL (
        SELECT d.id, d.merge_commit_shas FROM deployments d WHERE d.source_table_id = t.id OFFSET 0) d
    CROSS JOIN LATERAL (
        SELECT a.deployment_id, a.pull_request_id FROM deployment_pull_requests a
        WHERE a.deployment_id = d.id OFFSET 0) a
    LEFT JOIN LATERAL (
        SELECT q.source_table_id FROM pull_requests q WHERE q.id = a.pull_request_id OFFSET 0) q ON true
    LEFT JOIN LATERAL (
        SELECT p.merge_commit_sha FROM bitbucket_pulls p WHERE p.id = q.source_table_id OFFSET 0) p ON true
    WHERE t.repository_id = %(repository)s""")
_FORGET = SQL("""
    DELETE FROM deployment_pull_requests a
    USING changed_deployments c JOIN bitbucket_deployments t USING (id) JOIN deployments d ON d.source_table_id = t.id
    WHERE a.deployment_id = d.id AND d.commit_sha IS DISTINCT FROM t.commit_sha""")
_OF_WORKSPACE = SQL("""
    SELECT r.id FROM bitbucket_repositories r
    WHERE r.workspace_id = %(workspace)s
      AND EXISTS (SELECT FROM bitbucket_deployments t WHERE t.repository_id = r.id)""")
# A pull request that is attributed under its merge commit was there when its repository was last looked at.
_CHANGED = SQL("""
    WITH changed AS MATERIALIZED (SELECT kind, id FROM changed_rows WHERE changed_in >= %(since)s),
    found AS (
        SELECT id FROM changed WHERE kind = 'branch'
        UNION SELECT t.repository_id FROM changed c JOIN bitbucket_deployments t USING (id) WHERE c.kind = 'deployment'
        UNION SELECT e.repository_id FROM changed c JOIN bitbucket_environments e USING (id)
        WHERE c.kind = 'environment'
        UNION SELECT p.repository_id FROM changed c JOIN bitbucket_pulls p USING (id)
        WHERE c.kind = 'pull' AND p.state = 'MERGED' AND p.merge_commit_sha IS NOT NULL AND NOT EXISTS (
            SELECT FROM pull_requests q JOIN deployment_pull_requests a ON a.pull_request_id = q.id
            JOIN deployments d ON d.id = a.deployment_id
            WHERE q.source_table_id = p.id AND p.merge_commit_sha = ANY(d.merge_commit_shas)))
    SELECT r.id FROM found f JOIN bitbucket_repositories r USING (id)
    WHERE r.workspace_id = %(workspace)s
      AND EXISTS (SELECT FROM bitbucket_deployments t WHERE t.repository_id = r.id)""")
_TOUCH = SQL("""
    INSERT INTO touched_deployments SELECT DISTINCT * FROM unnest(%(deployments)s::bigint[]) ON CONFLICT DO NOTHING""")
_REMOVE = SQL("""
    DELETE FROM deployment_pull_requests a USING unnest(%(deployments)s::bigint[], %(pulls)s::bigint[]) AS gone (d, p)
    WHERE a.deployment_id = gone.d AND a.pull_request_id = gone.p""")
_ADD = SQL("""
    INSERT INTO deployment_pull_requests (deployment_id, pull_request_id)
    SELECT * FROM unnest(%(deployments)s::bigint[], %(pulls)s::bigint[])""")

ATTRIBUTED = Derivation(
    unified.deployments,
    {
        "merge_commit_shas": "array_agg(DISTINCT p.merge_commit_sha ORDER BY p.merge_commit_sha)",
        "attributed_at": "CASE WHEN count(p.merge_commit_sha) > 0 THEN COALESCE(max(d.attributed_at), now()) END",
    },
    SQL("""
        FROM touched_deployments JOIN deployments d USING (id)
        LEFT JOIN deployment_pull_requests a ON a.deployment_id = d.id
        LEFT JOIN pull_requests q ON q.id = a.pull_request_id
        LEFT JOIN bitbucket_pulls p ON p.id = q.source_table_id
        GROUP BY d.id"""),
    {"p": bitbucket.pulls, "d": {"attributed_at": ()}},
)
_RECORD = SQL("""
    UPDATE deployments old SET merge_commit_shas = array_remove(new.shas, NULL), attributed_at = new.at
    FROM (SELECT d.id, {shas} AS shas, {at} AS at {rows}) new WHERE old.id = new.id
    RETURNING NOT EXISTS (SELECT FROM changed_deployments c WHERE c.id = old.source_table_id) AS others""").format(
    shas=SQL(ATTRIBUTED.columns["merge_commit_shas"]),
    at=SQL(ATTRIBUTED.columns["attributed_at"]),
    rows=ATTRIBUTED.rows,
)


@dataclass(frozen=True)
class Ancestry:
    """Parents of commits: `parents[k]` is one of commit `children[k]`, and `children` is sorted."""

    commits: int
    children: Sequence[int]
    parents: Sequence[int]

    def first_to_contain(self, starts: Iterable[Commit]) -> dict[Commit, int]:
        """For each start, each of its ancestors, and no others: the place of the first start that contains it."""
        ends = [0] * self.commits
        for child in self.children:
            ends[child] += 1
        ends = list(accumulate(ends, initial=0))
        first: dict[Commit, int] = {}
        for place, start in enumerate(starts):
            pending = [start]
            while pending:
                commit = pending.pop()
                if commit not in first:
                    first[commit] = place
                    if isinstance(commit, int):
                        pending += self.parents[ends[commit] : ends[commit + 1]]
        return first


async def forget_other_commits(transaction: Transaction) -> None:
    """Forgets attributions of `changed_deployments` to which the stored rows give another commit."""
    await transaction.execute(_FORGET)


async def attribute(transaction: Transaction, scope: Scope) -> None:
    """Brings `deployment_pull_requests` up to date, repository by repository."""
    await transaction.execute("CREATE TEMPORARY TABLE touched_deployments (id bigint PRIMARY KEY) ON COMMIT DROP")
    for repository in await transaction.rows(_OF_WORKSPACE if scope.everything else _CHANGED, scope.bound):
        bound = {"repository": repository.id}
        history = await transaction.row(_HISTORY, bound)
        stored = await transaction.rows(_STORED, bound)
        known = {(row.deployment_id, row.pull_request_id): row.holds for row in stored}
        wanted = _attributed(history, {pair for pair, holds in known.items() if holds})
        changed = {pair for pair, holds in known.items() if not holds} & wanted
        new, gone = wanted - known.keys(), known.keys() - wanted
        await _write(transaction, new, gone, changed)
        transaction.count(str(unified.deployment_pull_requests.name), inserted=len(new), updated=len(gone | changed))
    rows = await transaction.rows(_RECORD)
    transaction.count(str(unified.deployments.name), updated=sum(row.others for row in rows))


def _attributed(history: Any, kept: Attributions) -> Attributions:
    """For each environment and merged pull request the earliest deployment that contains it, or is `kept` to do."""
    ancestry = Ancestry(history.commits, history.children or [], history.parents or [])
    merges = list(_commits(history.pulls, history.merge_shas, history.merged))
    pulls = {pull for pull, _ in merges}
    attributed: Attributions = set()
    deployed = zip(
        history.environments or [],
        _commits(history.deployments, history.deployed_shas, history.deployed),
        strict=True,
    )
    for _, group in groupby(deployed, key=lambda one: one[0]):
        deployments, starts = zip(*(one for _, one in group), strict=True)
        places = {deployment: place for place, deployment in enumerate(deployments)}
        first = ancestry.first_to_contain(starts)
        earliest = {pull: first[commit] for pull, commit in merges if commit in first}
        for deployment, pull in kept:
            if deployment in places and pull in pulls:
                earliest[pull] = min(earliest.get(pull, places[deployment]), places[deployment])
        attributed |= {(deployments[place], pull) for pull, place in earliest.items()}
    return attributed


def _commits(
    ids: Sequence[int] | None, shas: Sequence[str] | None, numbers: Sequence[int | None] | None
) -> Iterator[tuple[int, Commit]]:
    """Each id with its commit. A hash that is stored nowhere may be short."""
    for one, sha, number in zip(ids or [], shas or [], numbers or [], strict=True):
        yield one, sha[:SHORT_HASH] if number is None else number


async def _write(transaction: Transaction, added: Attributions, removed: Attributions, changed: Attributions) -> None:
    """Stores the differences. Deployments whose attributions changed, also by another merge commit, are touched."""
    for statements, pairs in (((_REMOVE, _TOUCH), removed), ((_ADD, _TOUCH), added), ((_TOUCH,), changed)):
        if pairs:
            deployments, pulls = zip(*sorted(pairs), strict=True)
            for statement in statements:
                await transaction.execute(statement, {"deployments": list(deployments), "pulls": list(pulls)})
