"""Runs in the clients' own environment: calls of the Data Cloud API with getdx, from JSON to JSON.

Standard input is a list of calls (method, path, body); DX_BASE_URL and DX_DATA_CLOUD_TOKEN say where and as whom.
"""

import json
import os
import sys
from typing import Any

from getdx import DXClient, DXDataCloudConfig
from getdx.errors import DXResponseError


def call(client: Any, method: str, path: str, body: object) -> dict[str, object]:
    # getdx has no methods for connections: its transport is what all of its methods go through.
    try:
        return {"answer": client.data_cloud._transport.request(method, path, json_body=body)}  # noqa: SLF001
    except DXResponseError as error:
        return {"error": type(error).__name__, "message": str(error), "status": error.status_code}


with DXClient(data_cloud=DXDataCloudConfig(base_url=os.environ["DX_BASE_URL"])) as client:
    json.dump([call(client, *one) for one in json.load(sys.stdin)], sys.stdout)
