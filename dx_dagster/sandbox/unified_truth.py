"""The expected rows of the unified tables, from the expected rows of the imported ones and not from any SQL.

Rows have natural keys, as `dx_dagster.sandbox.truth` describes them; `dx_user` and the like are accounts.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from dx_dagster.sandbox.durations import business_seconds, seconds
from dx_dagster.sandbox.measures_truth import measured

Row = Mapping[str, Any]
Pull = tuple[str, int]  # uuid of the repository, number
_EARLIEST = datetime.min.replace(tzinfo=UTC)
_LATEST = datetime.max.replace(tzinfo=UTC)
_STANDARDS = {"AES", "CRC", "CVE", "CWE", "IEC", "IEEE", "ISO", "MD", "RFC", "RSA", "SHA", "UTF"}


def unified_truth(truth: Mapping[str, Sequence[Row]], zones: Mapping[str, str] | None = None) -> dict[str, list[Row]]:
    """Rows by table, of the rows of `truth`. `zones`: time zones of accounts; UTC for all others."""
    zones = zones or {}
    users = {row["source_id"]: row for row in truth["bitbucket_users"]}
    commits = defaultdict[Pull, list[Row]](list)
    for commit in truth["bitbucket_pull_commits"]:
        commits[commit["repository"], commit["pull"]].append(commit)
    reviews = defaultdict[Pull, list[Row]](list)
    for activity in truth["bitbucket_pull_activities"]:
        if activity["kind"] != "update":
            reviews[activity["repository"], activity["pull"]].append(activity)
    for comment in truth["bitbucket_pull_comments"]:
        reviews[comment["repository"], comment["pull"]].append(comment)
    pulls = {_key(pull): pull for pull in truth["bitbucket_pulls"]}
    reverted: dict[Pull, datetime | None] = {}
    for key, at in _reverted(pulls, commits):
        reverted.setdefault(key, at)
    unified: dict[str, list[Row]] = {
        "repos": [_repo(row, truth["bitbucket_workspaces"][0]) for row in truth["bitbucket_repositories"]],
        "pull_requests": [
            {**_pull_request(pull, users, reviews[key], zones), **_revert(reverted, key)} for key, pull in pulls.items()
        ],
        "pull_request_commits": [
            _commit(row, users) for row in truth["bitbucket_pull_commits"] if (row["repository"], row["pull"]) in pulls
        ],
        "pull_request_reviews": [
            _review(row, users, pulls[row["repository"], row["pull"]], zones) for row in truth["bitbucket_reviews"]
        ],
        "pull_request_issues": [
            {"repository": pull["repository"], "pull": pull["source_id"], "issue_key": key, "issue_id": None}
            for pull in pulls.values()
            for key in {*_issue_keys(pull["title"]), *_issue_keys(pull["source_branch"])}
        ],
    }
    return {**unified, "pull_request_measures": measured(truth, unified)}


def _revert(reverted: Mapping[Pull, datetime | None], key: Pull) -> Row:
    return {"reverted": key in reverted, "reverted_at": reverted.get(key)}


def _key(pull: Row) -> Pull:
    return pull["repository"], pull["source_id"]


def _repo(row: Row, workspace: Row) -> Row:
    return {
        "external_id": row["source_id"],
        "name": row["name"],
        "organization": workspace["slug"],
        "default_branch": row["default_branch"],
        "api_accessible": row["api_accessible"],
        "deleted": False,
        "source": "bitbucket",
    }


def _pull_request(pull: Row, users: Mapping[str, Row], reviews: Sequence[Row], zones: Mapping[str, str]) -> Row:
    author = users.get(pull["user"])
    is_bot = author is not None and bool(author["bot"])
    start = pull["ready_for_review"] or pull["created_at"]
    by_people = [
        review
        for review in reviews
        if review["user"] in users
        and review["user"] != pull["user"]
        and not users[review["user"]]["bot"]
        and (start or _EARLIEST) <= review["created_at"] <= (pull["closed_at"] or _LATEST)
    ]
    reviewed = min(by_people, key=_date, default=None)
    approved = min((one for one in by_people if one.get("kind") == "approval"), key=_date, default=None)
    author_zone = zones.get(pull["user"], "UTC")

    def hours(event: Row | None) -> float | None:
        return business_seconds(start, event["created_at"], zones.get(event["user"], "UTC")) if event else None

    return {
        "repository": pull["repository"],
        "external_id": str(pull["source_id"]),
        "additions": pull.get("additions"),
        "base_ref": pull["target_branch"],
        "bot_authored": is_bot,
        "bot_name": author["name"] if author and is_bot else None,
        "closed": pull["closed_at"],
        "created": pull["created_at"],
        "deletions": pull.get("deletions"),
        "dx_user": pull["user"],
        "external_url": pull["source_url"],
        "head_ref": pull["source_branch"],
        "merge_commit_sha": pull["merge_commit_sha"],
        "merged_by_user": pull["merged_by_user"],
        "merged": pull["merged_at"],
        "open_to_first_approval": seconds(start, _date(approved) if approved else None),
        "open_to_first_approval_business_hours": hours(approved),
        "open_to_first_review": seconds(start, _date(reviewed) if reviewed else None),
        "open_to_first_review_business_hours": hours(reviewed),
        "open_to_merge": seconds(start, pull["merged_at"]),
        "open_to_merge_business_hours": business_seconds(start, pull["merged_at"], author_zone),
        "tz": author_zone,
        "title": pull["title"],
        "updated": pull["updated_at"],
        "draft": pull["draft"],
        "ready_for_review_at": pull["ready_for_review"],
        "weight": None,
        "classification": None,
        "deleted": False,
        "source": "bitbucket",
    }


def _date(event: Row) -> datetime:
    at: datetime = event["created_at"]
    return at


def _commit(row: Row, users: Mapping[str, Row]) -> Row:
    author = users.get(row["author"])
    return {
        "repository": row["repository"],
        "pull": row["pull"],
        "sha": row["sha"],
        "external_id": row["sha"],
        "created": row["created"],
        "message": row["message"],
        "dx_user": row["author"],
        "external_url": row["source_url"],
        "bot_authored": author is not None and bool(author["bot"]),
        "deleted": row["deleted"],
        "source": "bitbucket",
    }


def _review(row: Row, users: Mapping[str, Row], pull: Row, zones: Mapping[str, str]) -> Row:
    start, zone = pull["ready_for_review"] or pull["created_at"], zones.get(row["user"], "UTC")
    return {
        "repository": row["repository"],
        "pull": row["pull"],
        "dx_user": row["user"],
        "comment_count": row["comment_count"],
        "created": row["created_at"],
        "external_url": row["source_url"],
        "time_since_request": seconds(start, row["created_at"]),
        "time_since_request_business_hours": business_seconds(start, row["created_at"], zone),
        "tz": zone,
        "review_type": row["state"],
        "bot_authored": users[row["user"]]["bot"],
        "deleted": False,
        "source": "bitbucket",
    }


def _issue_keys(text: str | None) -> Iterator[str]:
    words = re.split("([^A-Za-z0-9_]+)", text or "")
    for project, between, number in zip(words[::2], words[1::2], words[2::2], strict=False):
        is_project = len(project) > 1 and project[0].isalpha() and project == project.upper()
        if between == "-" and is_project and project not in _STANDARDS and number.isdigit() and number[0] != "0":
            yield f"{project}-{number}"


def _reverted(
    pulls: Mapping[Pull, Row], commits: Mapping[Pull, Sequence[Row]]
) -> Iterator[tuple[Pull, datetime | None]]:
    """The pull requests that a later merged one says it reverts, with the date of its merge; the earliest first."""
    merged = sorted(
        (pull for pull in pulls.values() if pull["state"] == "MERGED"), key=lambda p: p["merged_at"] or _EARLIEST
    )
    for place, pull in enumerate(merged):
        before = [other for other in merged[:place] if other["repository"] == pull["repository"]]
        found = [
            other
            for other in before
            if _names(pull, commits[_key(pull)], other, {c["sha"] for c in commits[_key(other)]})
        ]
        quoted = _quoted(pull["title"])
        if not found and quoted and "(pull request #" not in quoted and not _says_which(commits[_key(pull)]):
            found = [other for other in before if other["title"] == quoted][-1:]
        yield from ((_key(one), pull["merged_at"]) for one in found)


def _quoted(title: str) -> str | None:
    return title[8:-1] if title.startswith('Revert "') and title.endswith('"') else None


def _says_which(commits: Iterable[Row]) -> bool:
    return any("\nThis reverts " in commit["message"] for commit in commits)


def _names(pull: Row, commits: Iterable[Row], other: Row, hashes: set[str]) -> bool:
    """Whether the pull request names the other one by its number, or by a commit of it."""
    number = f"pull request #{other['source_id']}"
    if (_quoted(pull["title"]) or "").endswith(f"({number})"):
        return True
    for commit in commits:
        for line in commit["message"].splitlines():
            what = line.removeprefix("This reverts ")
            if what == f"{number}.":
                return True
            sha = what.removeprefix("commit ")[:40]
            if what.startswith("commit ") and (sha == other["merge_commit_sha"] or sha in hashes - {commit["sha"]}):
                return commit["sha"] not in hashes
    return False
