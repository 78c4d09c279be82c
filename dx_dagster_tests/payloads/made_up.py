"""Answers made up from the documentation, with every part that is imported; and whether a frame holds them."""

import json
from collections.abc import Sequence

import polars as pl

from dx_dagster.frames.building import Schema, types
from dx_dagster.warehouse import merge
from dx_dagster_tests.payloads.evidence import Json

ACCOUNT = {"uuid": "{aaaaaaaa-aaaa-4aaa-8aaa-aaaaaaaaaaaa}", "account_id": "5:1", "nickname": "ann"}
_HASH = "0123456789ab"
_DATE = "2026-04-07T09:12:30.828883+00:00"
_LINKS = {"html": {"href": "https://bitbucket.org/acme/api"}}
_SIDE = {"branch": {"name": "main"}, "commit": {"hash": _HASH}, "repository": {"uuid": "{b}"}}
PULL: Json = {
    "id": 7,
    "title": "Add a feature",
    "state": "MERGED",
    "draft": False,
    "author": ACCOUNT,
    "closed_by": ACCOUNT,
    "source": _SIDE,
    "destination": _SIDE,
    "merge_commit": {"hash": _HASH},
    "comment_count": 1,
    "task_count": 0,
    "created_on": _DATE,
    "updated_on": _DATE,
    "links": _LINKS,
    "reviewers": [ACCOUNT],
    "participants": [
        {"user": ACCOUNT, "role": "REVIEWER", "approved": True, "state": "approved", "participated_on": _DATE}
    ],
}
COMMENT: Json = {
    "id": 9,
    "content": {"raw": "good"},
    "user": ACCOUNT,
    "parent": {"id": 8},
    "inline": {"path": "a.py", "from": None, "to": 5},
    "created_on": _DATE,
    "updated_on": _DATE,
    "deleted": False,
    "pending": False,
    "links": _LINKS,
}
ENTRIES: Sequence[Json] = [
    {"pull_request": {"id": 7}, "comment": COMMENT},
    {"pull_request": {"id": 7}, "update": {"state": "OPEN", "draft": True, "date": _DATE, "author": ACCOUNT}},
    {"pull_request": {"id": 7}, "approval": {"date": _DATE, "user": ACCOUNT}},
    {"pull_request": {"id": 7}, "changes_requested": {"date": _DATE, "user": ACCOUNT}},
]
COMMIT: Json = {
    "hash": _HASH,
    "date": _DATE,
    "message": "More",
    "author": {"raw": "Ann <ann@example.com>", "user": ACCOUNT},
    "parents": [{"hash": _HASH}],
    "links": _LINKS,
}
PIPELINE: Json = {
    "uuid": "{cccccccc-cccc-4ccc-8ccc-cccccccccccc}",
    "build_number": 3,
    "run_number": 2,
    "state": {"name": "COMPLETED", "result": {"name": "FAILED"}, "stage": {"name": "PAUSED"}},
    "trigger": {"name": "PUSH"},
    "target": {"ref_name": "main", "commit": {"hash": _HASH}, "pullrequest": {"id": 7}, "source": "feature"},
    "creator": ACCOUNT,
    "created_on": _DATE,
    "completed_on": _DATE,
    "duration_in_seconds": 12,
    "repository": {"links": _LINKS},
}

ENVIRONMENT: Json = {
    "uuid": "{dddddddd-dddd-4ddd-8ddd-dddddddddddd}",
    "name": "Live",
    "slug": "live",
    "rank": 2,
    "hidden": False,
    "environment_type": {"name": "Production"},
    "category": {"name": "Production"},
}
# Spelt as the description of the API does, which has no `deployable`.
DEPLOYMENT: Json = {
    "uuid": "{eeeeeeee-eeee-4eee-8eee-eeeeeeeeeeee}",
    "state": {
        "name": "COMPLETED",
        "status": {"name": "FAILED"},
        "url": "https://bitbucket.org/acme/api/1",
        "start_date": _DATE,
        "completion_date": _DATE,
    },
    "environment": {"uuid": ENVIRONMENT["uuid"]},
    "release": {
        "name": "#3",
        "url": "https://bitbucket.org/acme/api",
        "commit": {"hash": _HASH},
        "created_on": _DATE,
        "pipeline": {"uuid": PIPELINE["uuid"]},
    },
    "last_update_time": _DATE,
}


def fits(frame: pl.DataFrame, schema: Schema) -> bool:
    """Whether the frame is of its schema; and what will travel to the database is JSON."""
    json.loads(merge.as_json(frame))
    return frame.schema == pl.Schema(types(schema))
