"""Verifies credentials: makes one test request for each required scope, and explains a failure."""

import shlex
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from itertools import islice
from urllib.parse import urlencode, urlsplit

from dx_dagster.bitbucket import (
    BitbucketClient,
    BitbucketError,
    Credential,
    CredentialPool,
    Endpoint,
    Forbidden,
    Gone,
    MemoryLedger,
    NotFound,
    PinnedClient,
    Retries,
    Timeouts,
    Unauthorized,
    endpoints,
    jira,
    sentence,
)
from dx_dagster.clock import HOST
from dx_dagster.connections import advice
from dx_dagster.connections.input import usable
from dx_dagster.frames.reading import inner, records, text
from dx_dagster.settings import Settings
from dx_dagster.warehouse.budgets import book
from dx_dagster.warehouse.connections.connections import ConnectionType
from dx_dagster.warehouse.connections.credentials import CredentialType, NewCredential, StoredCredential
from dx_dagster.warehouse.database import Warehouse

# A person waits for the answer. Still, a request that hangs for ten seconds is tried a second time.
_IMPATIENT = Retries(attempts=3, total=12.0, patience=5.0)
_TIMEOUTS = Timeouts(connect=5.0, read=10.0, write=10.0, pool=10.0, total=15.0)
_REPOSITORIES_TO_TRY = 5
UNAVAILABLE = "unavailable"


@dataclass(frozen=True)
class Failure:
    """Why a credential cannot be used.

    Attributes:
        code: invalid_credentials, invalid_permissions or no_resources; unavailable when the service did not answer.
        reason: one sentence.
        curl: a command that reproduces the answer, with a placeholder for the secret; may be empty.
        hint: the usual cause and its remedy; may be empty.
        looks_like: the other kind of credential, where the secret looks like one. Each door says how to give it there.
    """

    code: str
    reason: str
    curl: str = ""
    hint: str = ""
    looks_like: CredentialType | None = None

    @property
    def sentence(self) -> str:
        return f"{self.reason} {self.hint}".strip()


@dataclass(frozen=True)
class Verdict:
    """How a verification ended.

    Attributes:
        notes: optional features that a good credential lacks.
        base_url: address at which the credential is good.
        requests: number of requests sent.
    """

    failure: Failure | None = None
    notes: tuple[str, ...] = ()
    base_url: str = ""
    requests: int = 0


class VerificationFailed(Exception):  # noqa: N818 - an outcome, not a fault
    """The credential was refused, and nothing was stored."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(f"{failure.code}: {failure.sentence}")
        self.failure = failure


@dataclass(frozen=True)
class Target:
    """What a credential must open: a workspace of Bitbucket Cloud, or a Jira site."""

    kind: ConnectionType
    workspace: str
    base_url: str

    @property
    def service(self) -> str:
        return "Jira" if self.kind == "jira_cloud" else "Bitbucket"

    @property
    def host(self) -> str:
        return urlsplit(self.base_url).hostname or self.base_url

    def at(self, base_url: str) -> "Target":
        return replace(self, base_url=base_url)

    @classmethod
    def of(cls, settings: Settings, kind: ConnectionType, workspace: str, jira_url: str | None = None) -> "Target":
        return cls(kind, workspace, (jira_url or "") if kind == "jira_cloud" else settings.bitbucket_api_url)


async def verify(target: Target, stored: StoredCredential | NewCredential) -> Verdict:
    """Makes one test request for each scope that an import over this type of connection needs."""
    try:
        credential = usable(stored)
    except ValueError:
        reason = "This is not a valid credential: it is empty, or contains spaces, line breaks or accented letters."
        return Verdict(Failure("invalid_credentials", reason, hint=advice.of_form(stored.secret)))
    if credential.expires is not None and credential.expires < HOST.now().date():
        reason = f"It expired on {credential.expires}."
        return Verdict(
            Failure("invalid_credentials", reason, hint="If the token is still valid, give a later day or none.")
        )
    verdict = await _ask(target, credential)
    if target.kind == "jira_cloud" and verdict.failure and verdict.failure.code == Unauthorized.code:
        # Jira answers 401 to a valid token with scopes: such a token needs the gateway.
        gateway = await jira.gateway_of(target.base_url, _TIMEOUTS)
        if gateway is not None:
            there = await _ask(target.at(gateway), credential)
            if there.failure is None or there.failure.code != Unauthorized.code:
                return there
    return verdict


@dataclass(frozen=True)
class Verifier:
    """Verifies for an installation: the requests count in the budgets that imports draw on."""

    settings: Settings
    warehouse: Warehouse
    target: Target

    async def require_good(self, new: NewCredential, credential_id: int | None = None) -> Verdict:
        """The verdict on a good credential.

        Raises:
            VerificationFailed: the credential is not good.
        """
        verdict = await self.verify(new, credential_id)
        if verdict.failure is not None:
            raise VerificationFailed(verdict.failure)
        return verdict

    async def verify(self, one: StoredCredential | NewCredential, credential_id: int | None) -> Verdict:
        """Verifies the credential and books the requests. A new access token has no number yet, and so no budget."""
        verdict = await verify(self.target, one)
        if credential_id is not None or one.type == "api_token":
            await self._book(one, credential_id or 0, verdict)
        return verdict

    async def book_first(self, new: NewCredential, added: int, verdict: Verdict) -> None:
        """Books the requests for a new access token, once it has its number."""
        if new.type == "access_token":
            await self._book(new, added, verdict)

    async def _book(self, one: StoredCredential | NewCredential, credential_id: int, verdict: Verdict) -> None:
        # Jira's rate limit is separate, and far above these few requests.
        if self.target.kind != "jira_cloud" and verdict.requests:
            budget = usable(one, credential_id).budget
            await book(self.warehouse, self.settings.budget_window, budget, verdict.requests)


async def _ask(target: Target, credential: Credential) -> Verdict:
    async with asking(target, credential) as client:
        check = _Check(target, credential, client)
        failure = await (check.jira() if target.kind == "jira_cloud" else check.bitbucket())
        notes = await check.notes() if failure is None else ()
        return Verdict(failure, notes, target.base_url, client.client.requests)


@asynccontextmanager
async def asking(
    target: Target, credential: Credential, ledger: MemoryLedger | None = None
) -> AsyncIterator[PinnedClient]:
    """A client for this one credential, with short timeouts and a ledger in memory: the credential has no row yet."""
    pool = CredentialPool([credential], ledger or MemoryLedger())
    probe = jira.MYSELF.path if target.kind == "jira_cloud" else f"{endpoints.repositories(target.workspace).path}"
    async with BitbucketClient(
        target.base_url, pool, probe_path=probe, timeouts=_TIMEOUTS, retries=_IMPATIENT
    ) as client:
        yield client.using(credential)


@dataclass(frozen=True)
class _Check:
    target: Target
    credential: Credential
    client: PinnedClient

    async def bitbucket(self) -> Failure | None:
        workspace = self.target.workspace
        asked = endpoints.repositories(workspace)
        try:
            body = await self.client.get(asked.path, {"pagelen": 10, "sort": "-updated_on"})
        except BitbucketError as error:
            refusals = [(asked, error)]
            if isinstance(error, Forbidden) and error.missing:
                refusals += await self._members()
            return await self._failure(refusals)
        found = {
            uuid: text(one.get("slug")) or uuid for one in records(body, "values") if (uuid := text(one.get("uuid")))
        }
        if not found:
            return Failure(
                "no_resources",
                f"The credential is good, but it sees no repository in workspace {workspace}.",
                curl(self.target, self.credential, asked),
                advice.of_absence(workspace, self.credential, await self._seen()),
            )
        refusals = await self._members() + await self._parts(dict(islice(found.items(), _REPOSITORIES_TO_TRY)))
        return await self._failure(refusals) if refusals else None

    async def _members(self) -> list[tuple[Endpoint, BitbucketError]]:
        if self.target.kind == "bitbucket_pipelines":
            return []
        members = endpoints.members(self.target.workspace)
        error = await self._refusal(members)
        return [(members, error)] if error else []

    async def _parts(self, repositories: Mapping[str, str]) -> list[tuple[Endpoint, BitbucketError]]:
        """Refusals of the parts of repositories, given as slugs by uuid. People read the slug."""
        only_pipelines = self.target.kind == "bitbucket_pipelines"
        parts: list[Callable[[str, str], Endpoint]] = [endpoints.pipelines]
        if not only_pipelines:
            parts.insert(0, endpoints.pull_requests)
        refusals = []
        for part in parts:
            for repository, slug in repositories.items():
                error = await self._refusal(part(self.target.workspace, repository))
                # One repository may be inaccessible or have Pipelines off: only a missing scope holds for all.
                if error is not None and _counts(error):
                    refusals.append((part(self.target.workspace, slug), error))
                if not (isinstance(error, Forbidden) and not error.required):
                    break
        return refusals

    async def _refusal(self, asked: Endpoint) -> BitbucketError | None:
        try:
            await self.client.get(asked.path, {"pagelen": endpoints.LEAST_PAGE})
        except BitbucketError as error:
            return error
        return None

    async def _seen(self) -> list[str]:
        """The workspaces that the credential sees; empty for access tokens, which may not list them."""
        try:
            body = await self.client.get("/user/workspaces", {"pagelen": 10}, attempts=1)
        except BitbucketError:
            return []
        return [slug for one in records(body, "values") if (slug := text(inner(one, "workspace", "slug")))]

    async def notes(self) -> tuple[str, ...]:
        """Notes a missing webhook scope, which an import does not need."""
        if self.target.kind != "bitbucket":
            return ()
        error = await self._refusal(endpoints.hooks(self.target.workspace))
        if error is None or not isinstance(error, Forbidden):
            return ()
        scopes = f" (scope {', '.join(error.missing)})" if error.missing else ""
        return (f"It cannot install webhooks{scopes}; imports work without them.",)

    async def jira(self) -> Failure | None:
        """Requests the account itself, and then its e-mail address the way an import does."""
        asked = jira.MYSELF
        try:
            body = await self.client.get(asked.path, asked.params)
            asked = jira.users_of([text(inner(body, "accountId")) or "unknown"])
            await self.client.get(asked.path, asked.params)
        except BitbucketError as error:
            return await self._failure([(asked, error)])
        return None

    async def _failure(self, refusals: Sequence[tuple[Endpoint, BitbucketError]]) -> Failure:
        asked, first = refusals[0]
        command, service = curl(self.target, self.credential, asked), self.target.service
        said = f" {service} said: {sentence(first.message)}" if first.message else ""
        if service == "Jira" and isinstance(first, Unauthorized | Forbidden) and "scope" in said:
            hint = advice.of_scopes(self.target.kind, self.credential)
            return Failure("invalid_permissions", f"The token lacks the scope {jira.SCOPE}.{said}", command, hint)
        if isinstance(first, Unauthorized):
            how = (
                "as a workspace access token (Bearer)"
                if self.credential.kind == "access_token"
                else "as an Atlassian API token (Basic)"
            )
            reason = f"{service} does not accept this credential {how}.{said}"
            hint = advice.of_refusal(service, self.credential)
            return Failure("invalid_credentials", reason, command, hint, advice.other_kind(service, self.credential))
        scoped = [(at, error) for at, error in refusals if isinstance(error, Forbidden) and error.missing]
        if scoped:
            missing = sorted({scope for _, error in scoped for scope in error.missing})
            reason = f"The credential lacks the scope{'s' if len(missing) > 1 else ''} {', '.join(missing)}."
            command = curl(self.target, self.credential, scoped[0][0])
            return Failure("invalid_permissions", reason, command, advice.of_scopes(self.target.kind, self.credential))
        if isinstance(first, Forbidden | NotFound | Gone):
            reason, hint = await self._closed(first)
            return Failure(first.code or "", reason + said, command, hint)
        reason, hint = advice.of_silence(service, self.target.host, first)
        return Failure(first.code or UNAVAILABLE, reason, command, hint)

    async def _closed(self, error: Forbidden | NotFound | Gone) -> tuple[str, str]:
        """Reason and hint for a target that does not exist, or that the credential may not read."""
        target = self.target
        if target.kind == "jira_cloud":
            if isinstance(error, Forbidden):
                return "The account may not look up users of this Jira site.", advice.JIRA_ACCESS
            return (
                f"There is no Jira Cloud site at {target.base_url}.",
                "An example of its address is https://acme.atlassian.net.",
            )
        hint = advice.of_absence(target.workspace, self.credential, await self._seen())
        if isinstance(error, Forbidden):
            return f"The credential may not read workspace {target.workspace}.", hint
        return f"There is no workspace {target.workspace} that this credential can see.", hint


def _counts(error: BitbucketError) -> bool:
    return not isinstance(error, NotFound | Gone) and not (isinstance(error, Forbidden) and not error.required)


def curl(target: Target, credential: Credential, asked: Endpoint) -> str:
    """A command that sends the same request; YOUR_TOKEN stands for the secret."""
    query = {name: value for name, value in asked.params.items() if name != "fields"}
    if asked.pagelen is not None:
        query["pagelen"] = endpoints.LEAST_PAGE
    url = f"{target.base_url}{asked.path}{f'?{urlencode(query, doseq=True)}' if query else ''}"
    who = (
        "-H 'Authorization: Bearer YOUR_TOKEN'"
        if credential.kind == "access_token"
        else f"-u {shlex.quote(f'{credential.username}:YOUR_TOKEN')}"
    )
    return f"curl -i {who} -H 'Accept: application/json' {shlex.quote(url)}"
