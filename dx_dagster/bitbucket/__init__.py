"""The HTTP client of Bitbucket Cloud: credentials, endpoints, paging, errors and webhook signatures."""

from dx_dagster.bitbucket import endpoints, jira
from dx_dagster.bitbucket.call import Json, Requester
from dx_dagster.bitbucket.client import BitbucketClient, PinnedClient
from dx_dagster.bitbucket.concurrency import AdaptiveLimiter, in_turn
from dx_dagster.bitbucket.credentials import Credential
from dx_dagster.bitbucket.endpoints import Endpoint
from dx_dagster.bitbucket.errors import (
    BadRequest,
    BitbucketError,
    CredentialsExhausted,
    Forbidden,
    Gone,
    NotFound,
    PagingInCircles,
    RateLimited,
    RefusedOrigin,
    Unauthorized,
    Unavailable,
    Undecided,
    from_response,
)
from dx_dagster.bitbucket.id_ranges import by_id_ranges
from dx_dagster.bitbucket.one_object import fetch_object
from dx_dagster.bitbucket.paging import Page, ahead, cursor, find_row, keyset, numbered, one_by_one, unreadable
from dx_dagster.bitbucket.pool import CredentialPool
from dx_dagster.bitbucket.retries import Retries, Timeouts
from dx_dagster.bitbucket.signatures import sign, verify
from dx_dagster.bitbucket.wording import clause, sentence
from dx_dagster.budgets.memory import MemoryLedger
from dx_dagster.budgets.protocol import Lease, Ledger

__all__ = [
    "AdaptiveLimiter",
    "BadRequest",
    "BitbucketClient",
    "BitbucketError",
    "Credential",
    "CredentialPool",
    "CredentialsExhausted",
    "Endpoint",
    "Forbidden",
    "Gone",
    "Json",
    "Lease",
    "Ledger",
    "MemoryLedger",
    "NotFound",
    "Page",
    "PagingInCircles",
    "PinnedClient",
    "RateLimited",
    "RefusedOrigin",
    "Requester",
    "Retries",
    "Timeouts",
    "Unauthorized",
    "Unavailable",
    "Undecided",
    "ahead",
    "by_id_ranges",
    "clause",
    "cursor",
    "endpoints",
    "fetch_object",
    "find_row",
    "from_response",
    "in_turn",
    "jira",
    "keyset",
    "numbered",
    "one_by_one",
    "sentence",
    "sign",
    "unreadable",
    "verify",
]
