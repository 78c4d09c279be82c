"""Imports e-mail addresses. Bitbucket's API does not return them; a Jira Cloud connection can supply them."""

import json
from collections.abc import Sequence

from dx_dagster.bitbucket import BitbucketError, Json, jira
from dx_dagster.connections import actions
from dx_dagster.connections.actions import Checked, CredentialNotFoundError
from dx_dagster.connections.revocation import following
from dx_dagster.connections.verification import asking
from dx_dagster.frames.reading import text
from dx_dagster.importer.report import Report, note
from dx_dagster.importer.workspace import Workspace
from dx_dagster.settings import Settings, SettingsError
from dx_dagster.warehouse.connections import connections, credentials
from dx_dagster.warehouse.connections.connections import StoredConnection
from dx_dagster.warehouse.connections.vault import Vault
from dx_dagster.warehouse.imported import emails


async def import_emails(settings: Settings, workspace: Workspace, report: Report) -> None:
    """Stores the e-mail addresses that Jira returns, if there is an enabled connection; a failure becomes a note.

    An account that hides its address loses the stored one. An account unknown to the Jira site is not changed.
    """
    connection = await connections.find(workspace.warehouse, workspace.slug, "jira_cloud")
    if connection is None or connection.disabled_at is not None:
        return
    try:
        stored = await credentials.all_of(workspace.warehouse, Vault.of(settings), connection.id)
    except SettingsError as error:
        note(workspace, report, f"no e-mail addresses: {error}")
        return
    for credential in stored:
        if await _imported(settings, workspace, connection, credential.id, report):
            await connections.record_sync(workspace.warehouse, workspace.slug, ["jira_cloud"])
            return
    if not stored:
        note(workspace, report, "no e-mail addresses: no credential of the Jira connection can be used")


async def _imported(
    settings: Settings, workspace: Workspace, connection: StoredConnection, credential_id: int, report: Report
) -> bool:
    """Whether the import with this credential succeeded; a failure is noted and recorded with the credential."""
    try:
        [checked] = await actions.check(settings, workspace.warehouse, connection, credential_id)
    except CredentialNotFoundError:  # removed in the meantime
        return False
    failure, label = checked.verdict.failure, checked.credential.label
    if failure is not None:
        if failure.code == "invalid_credentials":
            await credentials.disable(workspace.warehouse, credential_id, failure.reason)
        note(workspace, report, f"no e-mail addresses with {label!r}: {failure.code}: {failure.sentence}")
        return False
    try:
        await _import(settings, workspace, connection, checked)
    except BitbucketError as error:
        note(workspace, report, f"not all e-mail addresses with {label!r}: {error}")
        return False
    return True


async def _import(settings: Settings, workspace: Workspace, connection: StoredConnection, checked: Checked) -> None:
    target = actions.target_of(settings, connection).at(checked.verdict.base_url)
    account_ids = await emails.account_ids(workspace.warehouse, workspace.id)
    async with (
        asking(target, actions.usable(checked.credential)) as client,
        following(workspace.warehouse, client.client.pool, connection.id),
    ):
        async for accounts in jira.users(client, account_ids):
            await emails.store(workspace.warehouse, workspace.id, _rows(accounts))


def _rows(accounts: Sequence[Json]) -> str:
    addresses = [(text(one["accountId"]), text(one.get("emailAddress")) or None) for one in accounts]
    return json.dumps([{"account_id": account_id, "email": email} for account_id, email in addresses])
