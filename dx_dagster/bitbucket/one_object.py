"""Requests for one object, such as a pull request or a pipeline."""

from typing import Any

from dx_dagster.bitbucket.call import Requester
from dx_dagster.bitbucket.endpoints import Endpoint
from dx_dagster.bitbucket.errors import Unavailable
from dx_dagster.bitbucket.row_keys import Key, has_key


async def fetch_object(client: Requester, endpoint: Endpoint, key: Key) -> dict[str, Any]:
    """Requests one object; `key` is the field that each such object has.

    Raises:
        Unavailable: the response is not such an object, but a 200 with an error for example.
    """
    body: Any = await client.request("GET", endpoint.path, params=endpoint.params)
    if not has_key(body, key):
        raise Unavailable(f"{endpoint.path} answered with something other than an object", path=endpoint.path)
    return body  # type: ignore[no-any-return]
