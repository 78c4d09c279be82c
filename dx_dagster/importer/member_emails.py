"""Asks Bitbucket which members have the e-mail addresses that are known from elsewhere.

The list of members shows no addresses, but answers to the tokens of some which members have given ones
(docs/bitbucket-api.md, "Workspaces and members"). A token that may not ask is left alone for a day.
"""

from collections.abc import Collection
from dataclasses import dataclass, field

from dx_dagster.bitbucket import BitbucketError, Credential, RateLimited, Unavailable, cursor, endpoints
from dx_dagster.frames import users
from dx_dagster.frames.reading import inner, text
from dx_dagster.importer.each import batches
from dx_dagster.importer.workspace import Workspace
from dx_dagster.warehouse.connections import connections
from dx_dagster.warehouse.imported import member_emails

_HOURS_AFTER_REFUSAL = 24
_HOURS_AFTER_FAILURE = 1


async def verify_emails(workspace: Workspace) -> None:
    """Stores which members have addresses that no account of the workspace is verified to have.

    It never fails: an import is complete without. Nothing is requested where no address is due.
    """
    due = await member_emails.due(workspace.warehouse, workspace.id)
    if not due:
        return
    refused = await member_emails.refused(workspace.warehouse)
    jira = await connections.find(workspace.warehouse, workspace.slug, "jira_cloud")
    asking = _Asking(
        workspace,
        [credential for credential in workspace.client.pool.usable if credential.id not in refused],
        # Otherwise Jira decides what `bitbucket_users` shows: some people hide their address there.
        shown=jira is None or jira.disabled_at is not None,
    )
    for emails in batches(due, endpoints.EMAILS_AT_ONCE):
        if not await asking.ask(emails):
            return


class _NotFilteredError(Exception):
    """The answer lists members, and none with an address that was asked for."""


@dataclass
class _Asking:
    """Asks with one credential after the other, until none is left that may."""

    workspace: Workspace
    credentials: list[Credential]
    shown: bool

    async def ask(self, emails: Collection[str]) -> bool:
        """Stores whose the addresses are; returns whether a credential got an answer."""
        while self.credentials:
            credential = self.credentials[0]
            try:
                answer = await self._answer(credential, emails)
            except _NotFilteredError:
                await self._drop(credential, _HOURS_AFTER_REFUSAL, "listed members without the addresses")
            except RateLimited:
                self.credentials.remove(credential)
            except BitbucketError as error:
                failed = error.status is None or isinstance(error, Unavailable)
                what = f"answered {error.status}" if error.status else "gave no usable answer"
                await self._drop(credential, _HOURS_AFTER_FAILURE if failed else _HOURS_AFTER_REFUSAL, what)
            else:
                async with self.workspace.warehouse.transaction() as transaction:
                    await member_emails.accept(transaction, credential.id)
                    await member_emails.store(transaction, self.workspace.id, emails, answer.found, shown=self.shown)
                return True
        return False

    async def _answer(self, credential: Credential, emails: Collection[str]) -> "_Answer":
        """What Bitbucket answers.

        Raises:
            _NotFilteredError: it did not understand the question.
            BitbucketError: there was no answer.
        """
        answer = _Answer(self.workspace.id, frozenset(emails))
        endpoint = endpoints.members(self.workspace.slug, list(emails))
        async for page in cursor(self.workspace.client.sparing(credential), endpoint):
            for value in page.values:
                answer.read(inner(value, "user"))
            if answer.others:
                break  # a filter that was ignored lists all members
        if answer.others and not answer.owners:
            raise _NotFilteredError
        return answer

    async def _drop(self, credential: Credential, hours: int, what: str) -> None:
        self.credentials.remove(credential)
        async with self.workspace.warehouse.transaction() as transaction:
            await member_emails.refuse(transaction, credential.id, hours=hours, reason=what)


@dataclass
class _Answer:
    """What an answer tells.

    Attributes:
        owners: ids of users, by address that was asked for.
        others: members who were not asked for.
    """

    workspace_id: str
    asked: frozenset[str]
    owners: dict[str, set[str]] = field(default_factory=dict)
    others: int = 0

    def read(self, account: object) -> None:
        email = (text(inner(account, "email")) or "").strip().lower()
        user_id = users.user_id(self.workspace_id, account)
        if user_id and email in self.asked:
            self.owners.setdefault(email, set()).add(user_id)
        else:
            self.others += 1

    @property
    def found(self) -> list[tuple[str, str]]:
        """(Id of a user, address). An address belongs to one account: of several, none is believed."""
        return [(user_id, email) for email, ids in self.owners.items() if len(ids) == 1 for user_id in ids]
