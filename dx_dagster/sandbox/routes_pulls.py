"""Pull requests, their comments and the activity feed."""

from bisect import bisect_left
from collections.abc import Collection, Mapping, Sequence

from dx_dagster.sandbox import rendering_pulls
from dx_dagster.sandbox.answers import Refused, error, html_not_found
from dx_dagster.sandbox.bbql import Getter
from dx_dagster.sandbox.calls import IncomingCall, encode, read_cursor, write_cursor
from dx_dagster.sandbox.fields import Selection
from dx_dagster.sandbox.pull_requests import Activity, Comment, PullRequest

STATES = ("OPEN", "MERGED", "DECLINED", "SUPERSEDED")
MOST_PULL_REQUESTS = 50  # per page; everything else takes 100

PULL_FIELDS: Mapping[str, Getter] = {
    "id": lambda p: p.number,
    "title": lambda p: p.title,
    "description": lambda p: p.description,
    "state": lambda p: p.state,
    "draft": lambda p: p.draft,
    "created_on": lambda p: p.created_on,
    "updated_on": lambda p: p.updated_on,
    "comment_count": lambda p: p.comment_count,
    "task_count": lambda p: p.task_count,
    "close_source_branch": lambda p: p.close_source_branch,
    "author.uuid": lambda p: p.author and p.author.uuid,
    "author.account_id": lambda p: p.author and p.author.account_id,
    "author.nickname": lambda p: p.author and p.author.nickname,
    "author.display_name": lambda p: p.author and p.author.display_name,
    "closed_by.uuid": lambda p: p.closed_by and p.closed_by.uuid,
    "source.branch.name": lambda p: p.source_branch,
    "source.commit.hash": lambda p: None if p.fork_gone else p.source.short,
    "destination.branch.name": lambda p: p.target_branch,
    "destination.commit.hash": lambda p: None if p.target_gone else p.target.short,
}
COMMENT_FIELDS: Mapping[str, Getter] = {
    "id": lambda c: c.number,
    "created_on": lambda c: c.created_on,
    "updated_on": lambda c: c.updated_on,
    "deleted": lambda c: c.deleted,
    "content.raw": lambda c: c.text,
    "user.uuid": lambda c: c.user and c.user.uuid,
}


def pull_requests(call: IncomingCall) -> bytes:
    """OPEN unless `state` or `q` says otherwise; newest first unless `sort` does."""
    repository = call.repository()
    states = {state for text in call.query.getlist("state") for state in text.upper().split(",") if state}
    if states and "sort" in call.query and call.faults.sort_with_states_fails:
        raise Refused(500, error("Internal server error"))
    if not states and "state" not in call.query.get("q", ""):
        states = {"OPEN"}
    found = call.faults.left_of("pullrequests", list(repository.pull_requests.values()))
    found = call.filtered(found, PULL_FIELDS, ids_ascend=True)
    if states and "ALL" not in states and not states.issuperset(STATES):
        found = [p for p in found if p.state in states]
    if "sort" not in call.query:
        found = found[::-1]
    elif call.query["sort"] != "id":  # they come that way
        found = call.sorted(found, PULL_FIELDS)
    return call.page(found, lambda p, selection: _listed(call, p, selection), most=MOST_PULL_REQUESTS)


def _listed(call: IncomingCall, pull_request: PullRequest, selection: Selection) -> bytes:
    return _rendered(call, pull_request, selection, rendering_pulls.LISTED)


def _rendered(call: IncomingCall, pull_request: PullRequest, selection: Selection, names: Collection[str]) -> bytes:
    key = (len(names), pull_request.repository.uuid, pull_request.number, selection.text)
    return call.memory.rendered(
        key, _version(pull_request), lambda: encode(rendering_pulls.render(pull_request, names, selection))
    )


def pull_request(call: IncomingCall) -> bytes:
    return _rendered(call, find(call), call.selection, rendering_pulls.PARTS)


def find(call: IncomingCall, *, html: bool = False) -> PullRequest:
    """The pull request that the path names."""
    repository, number = call.repository(html=html), call.path["number"]
    found = repository.pull_requests.get(int(number)) if number.isdecimal() else None
    if found is None:
        raise Refused(404, error(f"Pull request {number} not found", typed=False))
    return found


def _version(pull_request: PullRequest) -> tuple[int, int]:
    return (pull_request.version, pull_request.repository.names_version)


def comments(call: IncomingCall) -> bytes:
    """Oldest first, deleted ones too."""
    found = find(call)
    listed = call.filtered(call.faults.left_of("comments", found.comments), COMMENT_FIELDS)

    def render(comment: Comment, selection: Selection) -> bytes:
        rendered = rendering_pulls.comment(found, comment)
        return encode(selection.apply(rendered))

    return call.page(call.sorted(listed, COMMENT_FIELDS), render)


def comment(call: IncomingCall) -> bytes:
    found = find(call)
    for candidate in found.comments:
        if str(candidate.number) == call.path["comment"]:
            rendered = rendering_pulls.comment(found, candidate)
            return encode(call.selection.apply(rendered))
    raise Refused(404, error(f"Comment {call.path['comment']} not found", typed=False))


def repository_activity(call: IncomingCall) -> bytes:
    """The feed of all pull requests; `q` and `sort` are ignored (docs/bitbucket-api.md, "Activity")."""
    repository = call.repository(html=True)
    if call.faults.feed_missing:
        raise html_not_found()
    length = call.faults.feed_length
    entries = repository.feed if length is None else repository.feed[-length:]
    return _feed(call, [entry for entry in entries if entry.kind not in call.faults.feed_leaves_out])


def activity(call: IncomingCall) -> bytes:
    return _feed(call, find(call, html=True).activity)


def _feed(call: IncomingCall, entries: Sequence[Activity]) -> bytes:
    """Newest first. `ctx` stands behind an entry, so that new entries at the head shift nothing."""
    entries = call.faults.left_of("activity", entries)
    pagelen, ctx = call.pagelen(MOST_PULL_REQUESTS), call.query.get("ctx")
    end = len(entries)
    if ctx:
        end = bisect_left(entries, read_cursor(ctx, 1)[0], key=lambda entry: entry.sequence)
    page: list[Activity] = []
    while end and len(page) < pagelen:
        end -= 1
        if _shown(entries[end]):
            page.append(entries[end])
    more = any(_shown(entries[index]) for index in range(end - 1, -1, -1))
    following = {"ctx": write_cursor(page[-1].sequence)} if page and more else {}
    return call.cursor_page(page, lambda entry, selection: _entry(call, entry, selection), pagelen, following)


def _shown(entry: Activity) -> bool:
    config = entry.pull_request.repository.config
    if entry.comment is not None and entry.comment.deleted:
        return config.feed_shows_deleted
    return config.feed_keeps_taken_back or not entry.taken_back


def _entry(call: IncomingCall, entry: Activity, selection: Selection) -> bytes:
    def render() -> bytes:
        rendered = rendering_pulls.activity(entry)
        return encode(selection.apply(rendered))

    pull_request = entry.pull_request
    key = ("entry", pull_request.repository.uuid, entry.sequence, selection.text)
    return call.memory.rendered(key, _version(pull_request), render)
