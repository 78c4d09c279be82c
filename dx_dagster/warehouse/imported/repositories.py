"""Repositories: which are stored, deleted or readable, and how far each is imported."""

from collections.abc import Collection
from datetime import datetime
from typing import NamedTuple

from dx_dagster.warehouse.database import Transaction, Warehouse


class Address(NamedTuple):
    """What names a repository in the API: its uuid, and its slug or else its uuid."""

    source_id: str
    slug: str


async def workspace_id(transaction: Transaction, slug: str) -> str | None:
    """The id of a workspace's row, once there is one."""
    row = await transaction.row("SELECT id::text FROM bitbucket_workspaces WHERE slug = %s", [slug])
    return row.id if row else None


async def all_ids(transaction: Transaction, workspace_id: str) -> list[str]:
    """Ids of all repositories of a workspace, deleted ones included."""
    rows = await transaction.rows("SELECT id::text FROM bitbucket_repositories WHERE workspace_id = %s", [workspace_id])
    return [row.id for row in rows]


async def not_deleted(warehouse: Warehouse, workspace_id: str) -> dict[str, str]:
    """The uuids of the workspace's repositories, by id."""
    rows = await warehouse.rows(
        "SELECT id::text, source_id FROM bitbucket_repositories WHERE workspace_id = %s AND deleted_at IS NULL",
        [workspace_id],
    )
    return {row.id: row.source_id for row in rows}


async def imported(warehouse: Warehouse, workspace: str) -> list[Address]:
    """The repositories of a workspace, by its slug, that syncs import."""
    return await warehouse.fetch(
        Address,
        """SELECT r.source_id, COALESCE(r.slug, r.source_id) AS slug FROM bitbucket_repositories r
           JOIN bitbucket_workspaces w ON w.id = r.workspace_id
           WHERE w.slug = %s AND r.deleted_at IS NULL AND r.allowlisted AND r.api_accessible ORDER BY 2""",
        [workspace],
    )


async def excluded(warehouse: Warehouse, workspace_id: str) -> set[str]:
    """The uuids and slugs of the repositories that somebody leaves out of imports."""
    rows = await warehouse.rows(
        "SELECT source_id, slug FROM bitbucket_repositories WHERE workspace_id = %s AND NOT allowlisted", [workspace_id]
    )
    return {name for row in rows for name in row}


async def settle_listing(
    transaction: Transaction, workspace_id: str, seen: Collection[str], gone: Collection[str]
) -> None:
    """Marks repositories (by id) that are `gone` as deleted, and those that a listing has `seen` as not deleted."""
    await transaction.execute(
        """UPDATE bitbucket_repositories SET deleted_at = NULL
           WHERE workspace_id = %s AND id = ANY(%s::uuid[]) AND deleted_at IS NOT NULL""",
        [workspace_id, list(seen)],
    )
    await transaction.execute(
        """UPDATE bitbucket_repositories SET deleted_at = now()
           WHERE workspace_id = %s AND id = ANY(%s::uuid[]) AND deleted_at IS NULL""",
        [workspace_id, list(gone)],
    )


async def set_deleted(transaction: Transaction, workspace_id: str, uuid: str | None, *, deleted: bool) -> None:
    """Marks one repository as deleted or not."""
    await transaction.execute(
        "UPDATE bitbucket_repositories SET deleted_at = CASE WHEN %s THEN now() END "
        "WHERE workspace_id = %s AND source_id = %s AND (deleted_at IS NOT NULL) <> %s",
        [deleted, workspace_id, uuid, deleted],
    )


async def set_access(transaction: Transaction, repository_id: str, refusal: str | None) -> None:
    """Records whether the API lets us read the repository; `refusal` is what it says where it does not."""
    await transaction.execute(
        "UPDATE bitbucket_repositories SET api_accessible = %s, inaccessible_reason = %s WHERE id = %s",
        [refusal is None, refusal, repository_id],
    )


async def pull_requests_synced(transaction: Transaction, repository_id: str, to: datetime | None) -> None:
    """Records that the pull requests were synced to the end just now; changes up to `to` are stored."""
    await transaction.execute(
        "UPDATE bitbucket_repositories SET pull_requests_synced_at = now(), pull_request_synced_to = %s WHERE id = %s",
        [to, repository_id],
    )


async def pipelines_synced(transaction: Transaction, repository_id: str) -> None:
    """Records that the pipelines were synced to the end just now."""
    await transaction.execute(
        "UPDATE bitbucket_repositories SET pipelines_synced_at = now() WHERE id = %s", [repository_id]
    )


async def default_branch_synced(transaction: Transaction, repository_id: str, to: datetime | None) -> None:
    """Records the date of the newest stored commit of the default branch."""
    await transaction.execute(
        "UPDATE bitbucket_repositories SET default_branch_commits_sync_to = %s WHERE id = %s", [to, repository_id]
    )
