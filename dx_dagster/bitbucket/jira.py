"""The Jira Cloud API, for e-mail addresses of Atlassian accounts: Bitbucket's API does not return them.

The site's own address accepts API tokens without scopes. It refuses tokens with scopes, which only api.atlassian.com
accepts, below the site's public cloud id (support.atlassian.com/atlassian-account/docs/
manage-api-tokens-for-your-atlassian-account; CLOUD-12617).
"""

import json
import re
from collections.abc import AsyncIterator, Sequence
from urllib.parse import urlsplit

import anyio
import httpx

from dx_dagster.bitbucket import transport
from dx_dagster.bitbucket.call import Json, Requester
from dx_dagster.bitbucket.endpoints import Endpoint
from dx_dagster.bitbucket.errors import PagingInCircles
from dx_dagster.bitbucket.retries import Timeouts
from dx_dagster.settings import is_loopback

GATEWAY = "https://api.atlassian.com"
USERS_AT_ONCE = 90  # a URL of five kilobytes
SCOPE = "read:jira-user"

MYSELF = Endpoint("/rest/api/3/myself", pagelen=None)
_USERS = "/rest/api/3/user/bulk"
_TENANT = "/_edge/tenant_info"
_CLOUD_ID = re.compile(r"[A-Za-z0-9-]{1,64}")


def users_of(account_ids: Sequence[str]) -> Endpoint:
    """Accounts, each with `accountId`, and with `emailAddress` unless its owner hides it."""
    return Endpoint(_USERS, {"accountId": list(account_ids), "maxResults": len(account_ids)}, pagelen=None)


async def users(client: Requester, account_ids: Sequence[str]) -> AsyncIterator[list[Json]]:
    """Yields the accounts, as many at a time as one URL holds; accounts unknown to the site are left out.

    Raises:
        BitbucketError: a request failed.
    """
    for first in range(0, len(account_ids), USERS_AT_ONCE):
        yield await _all_pages(client, account_ids[first : first + USERS_AT_ONCE])


async def _all_pages(client: Requester, account_ids: Sequence[str]) -> list[Json]:
    accounts: dict[str, Json] = {}
    asked, start = users_of(account_ids), 0
    while True:
        body = await client.request("GET", asked.path, params={**asked.params, "startAt": start})
        listed = body.get("values") if isinstance(body, dict) else None
        values = [one for one in listed or [] if isinstance(one, dict) and isinstance(one.get("accountId"), str)]
        new = {one["accountId"]: one for one in values if one["accountId"] not in accounts}
        accounts |= new
        start += len(values)
        total = body.get("total") if isinstance(body, dict) else None
        # `isLast` may be missing, and a page may be shorter than was asked for.
        if not values or body.get("isLast") is True or start >= (total if isinstance(total, int) else len(account_ids)):
            return list(accounts.values())
        if not new:
            raise PagingInCircles(f"GET {asked.path} repeats itself", method="GET", path=asked.path)


async def gateway_of(site: str, timeouts: Timeouts) -> str | None:
    """The base URL for API tokens with scopes; None where the site does not answer. Sends no credential."""
    parts = urlsplit(site)
    if parts.path:
        return None  # `site` is the gateway
    async with transport.build(timeouts, max_in_flight=1, encrypted=parts.scheme == "https") as http:
        try:
            with transport.hushed(), anyio.fail_after(timeouts.total):
                answer = await http.get(site + _TENANT)
            cloud_id = json.loads(answer.content).get("cloudId") if answer.is_success else None
        except (httpx.HTTPError, httpx.InvalidURL, TimeoutError, ValueError, AttributeError):
            return None
    if not isinstance(cloud_id, str) or not _CLOUD_ID.fullmatch(cloud_id):
        return None
    # A site on loopback is a sandbox: its requests must not go to Atlassian.
    return f"{site if is_loopback(parts.hostname) else GATEWAY}/ex/jira/{cloud_id}"
