"""Diffstats: that of a pull request leads to that of its commits."""

from urllib.parse import quote, urlencode

from dx_dagster.sandbox import rendering
from dx_dagster.sandbox.answers import Refused, error
from dx_dagster.sandbox.calls import IncomingCall, encode
from dx_dagster.sandbox.codebases import Codebase
from dx_dagster.sandbox.diffstats import ChangedFile, changed_files, refusal
from dx_dagster.sandbox.fields import Selection
from dx_dagster.sandbox.rendering import Json
from dx_dagster.sandbox.routes_pulls import find

BETWEEN = "\r"  # of the two commits in the address, where the documentation has ".."


def pull_request_diffstat(call: IncomingCall) -> bytes:
    """302 to the diffstat of its commits, with the same query."""
    found = find(call)
    if found.fork_gone and (gone := refusal(found)):
        raise gone
    name = found.repository.full_name
    commits = quote(f"{name}:{found.source.short}{BETWEEN}{found.target.short}", safe="/:")
    query = urlencode([*call.query.multi_items(), ("from_pullrequest_id", found.number), ("topic", "true")])
    base = call.url.partition("/2.0")[0]
    raise Refused(302, b"", {"location": f"{base}/2.0/repositories/{name}/diffstat/{commits}?{query}"})


def diffstat(call: IncomingCall) -> bytes:
    """Of a pull request only; others are not made up."""
    repository, number = call.repository(), call.query.get("from_pullrequest_id", "")
    found = repository.pull_requests.get(int(number)) if number.isdecimal() else None
    if found is None or BETWEEN not in call.path["spec"]:
        raise Refused(404, error(f"Commit not found: {call.path['spec']}", typed=False))
    if (refused := refusal(found)) is not None:
        raise refused
    head = found.source.sha

    def render(file: ChangedFile, selection: Selection) -> bytes:
        return encode(selection.apply(_rendered(repository, head, file)))

    return call.page(changed_files(found), render)


def _rendered(repository: Codebase, head: str, file: ChangedFile) -> Json:
    return {
        "type": "diffstat",
        "status": file.status,
        "lines_added": file.added,
        "lines_removed": file.removed,
        "old": _side(repository, head, file.old),
        "new": _side(repository, head, file.new),
    }


def _side(repository: Codebase, head: str, path: str | None) -> Json | None:
    if path is None:
        return None
    escaped = quote(path)
    address = f"{rendering.API}/repositories/{repository.full_name}/src/{head}/{escaped}"
    return {"type": "commit_file", "path": path, "escaped_path": escaped, "links": rendering.links(self=address)}
