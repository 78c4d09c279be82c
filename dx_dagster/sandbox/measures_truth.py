"""The expected rows of `pull_request_measures`, from those of the imported and the unified tables.

Which deployment brought which merge is known only where no history was rewritten: what depends on it is left out.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from dx_dagster.sandbox.durations import business_seconds, seconds
from dx_dagster.sandbox.story import TRAILERS

Row = Mapping[str, Any]
_LATEST = datetime.max.replace(tzinfo=UTC)


def measured(truth: Mapping[str, Sequence[Row]], unified: Mapping[str, Sequence[Row]]) -> list[Row]:
    """A row for each pull request. Weeks are those of UTC."""
    people = {user["source_id"] for user in truth["bitbucket_users"] if not user["bot"]}
    reviews, comments = defaultdict[tuple[str, int], list[Row]](list), defaultdict[tuple[str, int], list[Row]](list)
    for review in unified["pull_request_reviews"]:
        if not review["bot_authored"]:
            reviews[review["repository"], review["pull"]].append(review)
    for comment in truth["bitbucket_pull_comments"]:
        if not comment["deleted"] and comment["user"] in people:
            comments[comment["repository"], comment["pull"]].append(comment)
    named = {
        (commit["repository"], commit["pull"])
        for commit in truth["bitbucket_pull_commits"]
        if not commit["deleted"] and any(trailer in commit["message"] for trailer in TRAILERS)
    }
    requests = {(row["repository"], row["external_id"]): row for row in unified["pull_requests"]}
    return [
        {**_measured(pull, requests[key[0], str(key[1])], reviews[key], comments[key]), "ai_named": key in named}
        for pull in truth["bitbucket_pulls"]
        if (key := (pull["repository"], pull["source_id"]))
    ]


def _measured(pull: Row, request: Row, reviews: Sequence[Row], comments: Sequence[Row]) -> Row:
    end, merged = request["closed"] or _LATEST, request["merged"]
    in_time = [review for review in reviews if review["created"] <= end]
    asked = [review["created"] for review in in_time if review["review_type"] == "DECLINED"]
    reviewed = None
    if request["open_to_first_review"] is not None:
        start = request["ready_for_review_at"] or request["created"]
        reviewed = start + timedelta(seconds=request["open_to_first_review"])
    sizes = (request["additions"], request["deletions"])
    return {
        "repository": request["repository"],
        "external_id": request["external_id"],
        "dx_user": request["dx_user"],
        "bot_authored": request["bot_authored"],
        "merged": merged,
        "week": merged and (merged - timedelta(days=merged.weekday())).date(),
        "coding_time": seconds(pull["first_commit_at"], request["created"]),
        "coding_time_business_hours": business_seconds(pull["first_commit_at"], request["created"], request["tz"]),
        "pickup_time": request["open_to_first_review"],
        "pickup_time_business_hours": request["open_to_first_review_business_hours"],
        "review_time": seconds(reviewed, merged),
        "review_time_business_hours": business_seconds(reviewed, merged, request["tz"]),
        "cycle_time": request["open_to_merge"],
        "cycle_time_business_hours": request["open_to_merge_business_hours"],
        "comment_count": sum(one["user"] != pull["user"] and one["created_at"] <= end for one in comments),
        "review_count": len(in_time),
        "reviewer_count": len({review["dx_user"] for review in in_time}),
        "re_reviewed": any(review["created"] > min(asked) for review in in_time) if asked else False,
        "merged_without_review": merged is not None and pull["open_to_first_review"] is None,
        "reverted": request["reverted"],
        "reverted_at": request["reverted_at"],
        "size": sum(sizes) if None not in sizes else None,
        "changed_files": pull.get("changed_files"),
    }
