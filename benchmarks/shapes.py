"""The tables that the documented way fills, and Bitbucket's JSON as their rows."""

from typing import Any, NamedTuple

Json = dict[str, Any]
Row = dict[str, Any]


class Table(NamedTuple):
    """`columns` are written as in SQL, the key first; `key` is how many of them identify a row."""

    name: str
    key: int
    columns: tuple[str, ...]

    @property
    def names(self) -> list[str]:
        return [column.split()[0] for column in self.columns]

    @property
    def create(self) -> str:
        return (
            f"CREATE TABLE {self.name} ({', '.join(self.columns)}, PRIMARY KEY ({', '.join(self.names[: self.key])}))"
        )

    @property
    def upsert(self) -> str:
        key, rest = self.names[: self.key], self.names[self.key :]
        return (
            f"INSERT INTO {self.name} ({', '.join(self.names)}) VALUES ({', '.join(f'%({n})s' for n in self.names)}) "  # noqa: S608
            f"ON CONFLICT ({', '.join(key)}) DO UPDATE SET {', '.join(f'{n} = excluded.{n}' for n in rest)}"
        )


REPOSITORIES = Table(
    "bitbucket_repositories", 1,
    ("source_id text", "name text", "slug text", "description text", "private boolean", "project_key text",
     "created_at timestamptz", "updated_at timestamptz", "source_url text", "default_branch text"),
)  # fmt: skip
USERS = Table(
    "bitbucket_users", 1,
    ("source_id text", "name text", "nickname text", "account_id text", "bot boolean", "active boolean"),
)  # fmt: skip
PULLS = Table(
    "bitbucket_pulls", 2,
    ("repository text", "source_id bigint", "user_id text", "merged_by_user_id text", "title text", "state text",
     "draft boolean", "source_branch text", "target_branch text", "source_commit_sha text", "merge_commit_sha text",
     "comment_count int", "task_count int", "created_at timestamptz", "updated_at timestamptz", "source_url text"),
)  # fmt: skip
PARTICIPANTS = Table(
    "bitbucket_pull_participants", 3,
    ("repository text", "pull bigint", "user_id text", "role text", "approved boolean", "state text",
     "participated_on timestamptz"),
)  # fmt: skip
ACTIVITIES = Table(
    "bitbucket_pull_activities", 6,
    ("repository text", "pull bigint", "kind text", "created_at timestamptz", "user_id text",
     "comment_source_id bigint", "state text"),
)  # fmt: skip
COMMENTS = Table(
    "bitbucket_pull_comments", 1,
    ("source_id bigint", "repository text", "pull bigint", "user_id text", "parent_source_id bigint", "content text",
     "inline_path text", "inline_from int", "inline_to int", "created_at timestamptz", "updated_at timestamptz",
     "deleted boolean", "source_url text"),
)  # fmt: skip
PULL_COMMITS = Table(
    "bitbucket_pull_commits", 3,
    ("repository text", "pull bigint", "sha text", "author_id text", "created timestamptz", "message text",
     "source_url text"),
)  # fmt: skip
BRANCH_COMMITS = Table(
    "bitbucket_repository_default_branch_commits", 2,
    ("repository text", "sha text", "author_id text", "created timestamptz", "message text", "source_url text"),
)  # fmt: skip
PIPELINES = Table(
    "bitbucket_pipelines", 1,
    ("source_id text", "repository text", "build_number int", "state text", "result text", "trigger text",
     "ref_name text", "commit_sha text", "pull bigint", "user_id text", "created_at timestamptz",
     "completed_at timestamptz", "duration int"),
)  # fmt: skip
TABLES = (*(REPOSITORIES, USERS, PULLS, PARTICIPANTS, ACTIVITIES, COMMENTS, PULL_COMMITS, BRANCH_COMMITS, PIPELINES),)


def inner(value: Json | None, *names: str) -> Any:
    """What stands at the end of a path, None where it ends early."""
    found: Any = value
    for name in names:
        found = found.get(name) if isinstance(found, dict) else None
    return found


def repository(value: Json) -> Row:
    return {
        "source_id": value["uuid"],
        "name": value["name"],
        "slug": value["slug"],
        "description": value.get("description"),
        "private": value.get("is_private"),
        "project_key": inner(value, "project", "key"),
        "created_at": value["created_on"],
        "updated_at": value["updated_on"],
        "source_url": inner(value, "links", "html", "href"),
        "default_branch": inner(value, "mainbranch", "name"),
    }


def user(value: Json, *, active: bool) -> Row:
    return {
        "source_id": value["uuid"],
        "name": value.get("display_name"),
        "nickname": value.get("nickname"),
        "account_id": value.get("account_id"),
        "bot": value.get("type") == "app_user",
        "active": active,
    }


def pull(repository: str, value: Json, merge_commit: str | None) -> Row:
    return {
        "repository": repository,
        "source_id": value["id"],
        "user_id": inner(value, "author", "uuid"),
        "merged_by_user_id": inner(value, "closed_by", "uuid") if value["state"] == "MERGED" else None,
        "title": value["title"],
        "state": value["state"],
        "draft": value.get("draft"),
        "source_branch": inner(value, "source", "branch", "name"),
        "target_branch": inner(value, "destination", "branch", "name"),
        "source_commit_sha": inner(value, "source", "commit", "hash"),
        "merge_commit_sha": merge_commit,
        "comment_count": value.get("comment_count"),
        "task_count": value.get("task_count"),
        "created_at": value["created_on"],
        "updated_at": value["updated_on"],
        "source_url": inner(value, "links", "html", "href"),
    }


def participant(repository: str, pull: int, value: Json) -> Row:
    return {
        "repository": repository,
        "pull": pull,
        "user_id": inner(value, "user", "uuid"),
        "role": value.get("role"),
        "approved": value.get("approved"),
        "state": value.get("state"),
        "participated_on": value.get("participated_on"),
    }


def activity(repository: str, pull: int, value: Json) -> Row:
    """An entry of the feed has no id of its own: all that it says of itself is its key."""
    kind = next(kind for kind in ("comment", "update", "approval", "changes_requested") if kind in value)
    body = value[kind]
    return {
        "repository": repository,
        "pull": pull,
        "kind": kind,
        "created_at": body.get("created_on") or body["date"],
        "user_id": inner(body, "author" if kind == "update" else "user", "uuid") or "",
        "comment_source_id": body["id"] if kind == "comment" else 0,
        "state": body.get("state"),
    }


def comment(repository: str, pull: int, value: Json) -> Row:
    return {
        "source_id": value["id"],
        "repository": repository,
        "pull": pull,
        "user_id": inner(value, "user", "uuid"),
        "parent_source_id": inner(value, "parent", "id"),
        "content": inner(value, "content", "raw"),
        "inline_path": inner(value, "inline", "path"),
        "inline_from": inner(value, "inline", "from"),
        "inline_to": inner(value, "inline", "to"),
        "created_at": value["created_on"],
        "updated_at": value["updated_on"],
        "deleted": value.get("deleted"),
        "source_url": inner(value, "links", "html", "href"),
    }


def commit(repository: str, value: Json) -> Row:
    return {
        "repository": repository,
        "sha": value["hash"],
        "author_id": inner(value, "author", "user", "uuid"),
        "created": value["date"],
        "message": value.get("message"),
        "source_url": inner(value, "links", "html", "href"),
    }


def pipeline(repository: str, value: Json) -> Row:
    target = value.get("target")
    return {
        "source_id": value["uuid"],
        "repository": repository,
        "build_number": value["build_number"],
        "state": inner(value, "state", "name"),
        "result": inner(value, "state", "result", "name"),
        "trigger": inner(value, "trigger", "name"),
        "ref_name": inner(target, "ref_name") or inner(target, "source"),
        "commit_sha": inner(target, "commit", "hash"),
        "pull": inner(target, "pullrequest", "id"),
        "user_id": inner(value, "creator", "uuid"),
        "created_at": value["created_on"],
        "completed_at": value.get("completed_on"),
        "duration": value.get("duration_in_seconds"),
    }
