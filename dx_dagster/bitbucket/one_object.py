"""Requests for one object, such as a pull request or a pipeline."""

from typing import Any

from dx_dagster.bitbucket.call import Requester
from dx_dagster.bitbucket.endpoints import Endpoint
from dx_dagster.bitbucket.errors import Unavailable


async def fetch_object(client: Requester, endpoint: Endpoint, key: str) -> dict[str, Any]:
    """Requests one object; `key` is a field that each such object has.

    Raises:
        Unavailable: the response is not such an object, but a 200 with an error for example.
    """
    body = await client.request("GET", endpoint.path, params=endpoint.params)
    if not isinstance(body, dict) or body.get(key) is None:
        raise Unavailable(f"{endpoint.path} answered with something other than an object", path=endpoint.path)
    return body
