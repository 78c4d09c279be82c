"""What a delivery says, in a few words for a person."""

from dx_dagster.frames.reading import Json, number, record, records, text

_PULL = "pullrequest:"
_PULL_REQUEST = {
    "created": "was opened",
    "updated": "was changed",
    "push": "has new commits",
    "approved": "was approved",
    "unapproved": "lost an approval",
    "changes_request_created": "has a change request",
    "changes_request_removed": "lost a change request",
    "fulfilled": "was merged",
    "rejected": "was declined",
    "comment_created": "has a new comment",
    "comment_updated": "has an edited comment",
    "comment_deleted": "lost a comment",
    "comment_resolved": "has a resolved comment",
    "comment_reopened": "has a reopened comment",
}
_REPOSITORY = {
    "created": "was created",
    "updated": "was changed",
    "deleted": "was deleted",
    "fork": "was forked",
    "imported": "was imported",
    "transfer": "was transferred",
}


def in_words(event_key: str, payload: Json) -> str:
    """The event as a sentence without a full stop, such as "pull request 212 of web-shop was approved"."""
    repository = record(payload, "repository")
    slug = (
        (text(repository.get("full_name")) or "").rpartition("/")[2] or text(repository.get("name")) or "a repository"
    )
    _, _, event = event_key.partition(":")
    if event_key.startswith(_PULL) and event in _PULL_REQUEST:
        return f"pull request {number(record(payload, 'pullrequest').get('id'))} of {slug} {_PULL_REQUEST[event]}"
    if event == "push":
        return f"{slug} has new commits{_branches(payload)}"
    if event.startswith("commit_status"):
        status = record(payload, "commit_status")
        return f"{text(status.get('name')) or 'a build'} of {slug} is {(text(status.get('state')) or 'new').lower()}"
    return f"repository {slug} {_REPOSITORY[event]}" if event in _REPOSITORY else f"{event_key} of {slug}"


def _branches(payload: Json) -> str:
    ends = (record(change, "new") or record(change, "old") for change in records(record(payload, "push"), "changes"))
    names = sorted({name for end in ends if (name := text(end.get("name")))})
    return f" on {names[0]}" if len(names) == 1 else f" on {len(names)} branches" if names else ""
