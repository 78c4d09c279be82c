"""Partial responses (`fields`) for the imports that ours is measured against: what they store and no more.

Without these the answers would be several times as large, and ours would win by that alone.
"""

_PAGING = "next"
_USER = ("type", "uuid", "account_id", "display_name", "nickname")


def _listed(*names: str) -> str:
    return ",".join([_PAGING, *(f"values.{name}" for name in names)])


def _users(*parents: str) -> list[str]:
    return [f"{parent}.{name}" for parent in parents for name in _USER]


REPOSITORIES = _listed(
    *("uuid", "name", "slug", "description", "is_private", "created_on", "updated_on", "links.html.href"),
    *("mainbranch.name", "project.key"),
)
PULL_REQUESTS = _listed(
    *("id", "title", "state", "draft", "comment_count", "task_count", "created_on", "updated_on", "links.html.href"),
    *("source.branch.name", "source.commit.hash", "destination.branch.name", "merge_commit.hash"),
    *_users("author", "closed_by", "participants.user"),
    *(f"participants.{name}" for name in ("role", "approved", "state", "participated_on")),
)
COMMITS = _listed("hash", "date", "message", "links.html.href", "author.raw", *_users("author.user"))
COMMIT = "hash,date"
