"""Whether a webhook tells every change: when its receiver was up, and what is known of lost deliveries.

A receiver that could not store a delivery leaves a gap: it was down, the database was, or it answered 503. So was one
that ended without a word, even where another receiver of the same address was up. The database's clock dates all of
it, and a time that has not come yet vouches for nothing.
"""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from dx_dagster.warehouse.database import Warehouse

SECONDS_TO_FIRST_BEAT = 1.0  # by then the server listens
SECONDS_BETWEEN_BEATS = 5.0
DISTRUST = timedelta(days=7)
"""So long a workspace's webhook is not believed after a reconcile has found changes that no delivery told."""

_KEPT = timedelta(days=30)

# Beats this far apart (see `BEAT`) leave no gap. It is well above the time that a statement of the receiver may take.
_BEATS_APART = timedelta(seconds=15)
# A receiver that crashed, or refused a delivery, may have lost others for a moment.
_MOMENT = timedelta(seconds=30)

# -- uptime, over the receiver's own connection ------------------------------------------------------------------------

BEAT = """
    UPDATE receiver_uptimes SET up_to = now()
    WHERE id = %s AND closed_at IS NULL AND up_to BETWEEN now() - interval '15 s' AND now()
    RETURNING id"""
BEGIN = "INSERT INTO receiver_uptimes (address, up_from, up_to) VALUES (%s, now(), now()) RETURNING id"
END = "UPDATE receiver_uptimes SET closed_at = now() WHERE id = %s"
REJECTED = """
    INSERT INTO webhook_beliefs (connection_id, rejected_at) VALUES (%s, now())
    ON CONFLICT (connection_id) DO UPDATE SET rejected_at = EXCLUDED.rejected_at"""

# An interval that does not go on where another one is: the address was covered from its beginning on.
# A beat may be newer than this transaction, so the time is that of the statement.
_COVERED_FROM = """
    WITH known AS (
        SELECT id, up_from, up_to, up_to BETWEEN clock_timestamp() - %(apart)s::interval AND clock_timestamp() AS is_up,
               closed_at IS NOT NULL AND up_to <= clock_timestamp() AS is_over
        FROM receiver_uptimes WHERE address = %(address)s)
    SELECT CASE WHEN bool_or(is_up AND NOT is_over) THEN GREATEST(
        max(up_from) FILTER (WHERE NOT EXISTS (
            SELECT FROM known before WHERE before.id <> known.id
              AND (before.up_from, before.id) < (known.up_from, known.id) AND before.up_to >= known.up_from)),
        max(up_to + %(moment)s::interval) FILTER (WHERE NOT is_up AND NOT is_over)) END AS covered_from,
        clock_timestamp() AS now
    FROM known"""


# -- belief ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Belief:
    """What the last look at a workspace's webhook came to.

    Attributes:
        vouched_from: since when deliveries have told every change; None where they are not believed.
        doubted_at: when that was last found not to be so.
        reason: why they are not believed.
        untold: changes of the last week that no delivery told.
    """

    vouched_from: datetime | None = None
    doubted_at: datetime | None = None
    looked_at: datetime | None = None
    reason: str | None = "no webhook is installed"
    untold: int = 0


_READ = """
    SELECT b.vouched_from, b.doubted_at, b.looked_at,
           CASE WHEN b.vouched_from IS NULL THEN COALESCE(b.reason, 'no webhook is installed') END AS reason,
           (SELECT count(*) FROM untold_changes u JOIN bitbucket_workspaces w ON w.id = u.workspace_id
            WHERE w.slug = c.workspace AND u.found_at > now() - %(distrust)s::interval)::int AS untold
    FROM connections c JOIN webhook_beliefs b ON b.connection_id = c.id
    WHERE c.workspace = %(workspace)s AND c.type = 'bitbucket' AND c.deleted_at IS NULL"""


async def read(warehouse: Warehouse, workspace: str) -> Belief:
    """The belief in a workspace's webhook, as of the last look."""
    return await warehouse.fetch_one(Belief, _READ, {"workspace": workspace, "distrust": DISTRUST}) or Belief()


_LOOK = """
    SELECT b.hook_uuid, b.hook_right_since, b.rejected_at, now() AS now, u.untold, u.last_found_at,
           b.rejected_at IS NOT NULL AND NOT EXISTS (
               SELECT FROM webhook_events e
               WHERE e.connection_id = b.connection_id AND e.received_at > b.rejected_at) AS is_rejected
    FROM (SELECT count(*)::int AS untold, max(found_at) AS last_found_at
          FROM untold_changes u JOIN bitbucket_workspaces w ON w.id = u.workspace_id
          WHERE w.slug = %(workspace)s AND u.found_at > now() - %(distrust)s::interval) u
    LEFT JOIN webhook_beliefs b ON b.connection_id = %(connection)s"""
_SETTLE = """
    INSERT INTO webhook_beliefs AS old (connection_id, hook_uuid, hook_right_since, vouched_from, reason, looked_at)
    VALUES (%(connection)s, %(hook)s, %(right_since)s, %(vouched_from)s, %(reason)s, now())
    ON CONFLICT (connection_id) DO UPDATE SET
        hook_uuid = EXCLUDED.hook_uuid, hook_right_since = EXCLUDED.hook_right_since,
        vouched_from = EXCLUDED.vouched_from, reason = EXCLUDED.reason, looked_at = EXCLUDED.looked_at,
        doubted_at = CASE WHEN old.vouched_from IS NOT NULL AND EXCLUDED.vouched_from IS NULL THEN now()
                          ELSE old.doubted_at END"""


async def settle(
    warehouse: Warehouse, connection_id: int, workspace: str, *, hook: str | None, url: str | None, wrong: str | None
) -> None:
    """Decides whether deliveries tell every change, after a look at the hook.

    `hook` is its uuid, `url` where it delivers, and `wrong` what is wrong with it. Nothing is believed for the time
    before the first look of an unbroken series that found it right.
    """
    async with warehouse.transaction() as transaction:
        bound = {"connection": connection_id, "workspace": workspace, "distrust": DISTRUST}
        known = await transaction.row(_LOOK, bound)
        is_same = known.hook_right_since is not None and known.hook_uuid == hook and known.hook_right_since <= known.now
        right_since = (known.hook_right_since if is_same else known.now) if wrong is None else None
        covered = await transaction.row(_COVERED_FROM, {"address": url, "apart": _BEATS_APART, "moment": _MOMENT})
        reason = wrong or _doubt(known, covered, workspace, url)
        rejected = known.rejected_at and known.rejected_at + _MOMENT
        vouched_from = None if reason else max(filter(None, (right_since, covered.covered_from, rejected)))
        await transaction.execute(
            _SETTLE,
            {
                "connection": connection_id,
                "hook": hook,
                "right_since": right_since,
                "vouched_from": vouched_from,
                "reason": reason,
            },
        )
        await transaction.execute("DELETE FROM receiver_uptimes WHERE up_to < now() - %s", [_KEPT])


def _doubt(known: Any, covered: Any, workspace: str, url: str | None) -> str | None:
    """Why the deliveries of a hook that is right are not believed."""
    if known.untold:
        changes = "a change" if known.untold == 1 else f"{known.untold} changes"
        until = known.last_found_at + DISTRUST
        return f"a reconcile found {changes} that no delivery told; it is believed again after {until:%Y-%m-%d}"
    if known.is_rejected:
        return (
            "a delivery was refused for its signature; to give the webhook its secret again: "
            f"dx-dagster webhooks install {workspace}"
        )
    if covered.covered_from is None:
        return f"no receiver is up at {url}"
    if covered.covered_from > covered.now:
        return "a receiver was stopped without a word, or the database's clock was set back"
    return None


async def given_secret(warehouse: Warehouse, connection_id: int) -> None:
    """Records that hooks were given their secret again. Deliveries that were refused before are lost."""
    async with warehouse.transaction() as transaction:
        await transaction.execute(
            "UPDATE webhook_beliefs SET rejected_at = NULL, hook_right_since = NULL, vouched_from = NULL, "
            "doubted_at = now() WHERE connection_id = %s AND rejected_at IS NOT NULL",
            [connection_id],
        )


async def forget(warehouse: Warehouse, connection_id: int) -> None:
    """Records that there is no webhook any more, where one was looked at."""
    async with warehouse.transaction() as transaction:
        await transaction.execute(
            "UPDATE webhook_beliefs SET hook_uuid = NULL, hook_right_since = NULL, vouched_from = NULL, reason = NULL, "
            "doubted_at = CASE WHEN vouched_from IS NULL THEN doubted_at ELSE now() END, looked_at = now() "
            "WHERE connection_id = %s",
            [connection_id],
        )


# -- untold changes ----------------------------------------------------------------------------------------------------


class UntoldChange(NamedTuple):
    """A change that a reconcile found, of which a delivery may have told."""

    id: int
    repository_source_id: str
    kind: str
    number: int
    changed_at: datetime | None
    since: datetime


async def untold(warehouse: Warehouse, workspace: str) -> list[UntoldChange]:
    """The changes that a reconcile found and that are not known to be told."""
    return await warehouse.fetch(
        UntoldChange,
        """SELECT u.id, r.source_id AS repository_source_id, u.kind, u.number, u.changed_at, u.since
           FROM untold_changes u JOIN bitbucket_workspaces w ON w.id = u.workspace_id
           JOIN bitbucket_repositories r ON r.id = u.repository_id WHERE w.slug = %s ORDER BY u.id""",
        [workspace],
    )


async def deliveries_since(warehouse: Warehouse, workspace: str, change: UntoldChange) -> list[str]:
    """Payloads about the change's pull request, or statuses of its repository, that arrived after `since`."""
    rows = await warehouse.rows(
        """SELECT body FROM webhook_events
           WHERE workspace = %(workspace)s AND repository_source_id = %(repository)s AND received_at >= %(since)s
             AND CASE %(kind)s WHEN 'pullrequest' THEN pull_number = %(number)s
                               ELSE event_key LIKE 'repo:commit_status_%%' END""",
        {
            "workspace": workspace,
            "repository": change.repository_source_id,
            "since": change.since,
            "kind": change.kind,
            "number": change.number,
        },
    )
    return [row.body for row in rows]


async def remove_told(warehouse: Warehouse, changes: Collection[int]) -> None:
    """Removes changes (by id) that turned out to be told, and those that are too old to count."""
    async with warehouse.transaction() as transaction:
        await transaction.execute(
            "DELETE FROM untold_changes WHERE id = ANY(%s) OR found_at < now() - %s", [list(changes), DISTRUST]
        )
