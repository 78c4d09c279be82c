"""What the history of a repository proves about the commits of a pull request.

They are those that its source reaches and its target did not when it was merged.

- Merged with a merge commit, rebased or squashed: the target was the merge's first parent.
- Fast-forwarded: the history holds no trace of where the target was. The head told with the pull request is it where
  the workspace's other merges show that this is frozen at the merge, and where there is but one commit above it.
- Open, declined or superseded: the target stood somewhere between the head told with the pull request and today's.
  Where both give the same commits, so does every head between them. Of closed ones this holds only where the head told
  is known not to be today's.
- A fork's commits are elsewhere.
"""

from dx_dagster.importer.commits.ancestry import Ancestry
from dx_dagster.warehouse.imported.commits import Targets
from dx_dagster.warehouse.imported.marks import Repository
from dx_dagster.warehouse.imported.pulls import Heads

CLOSED = " (branch closed)"


def can_be_told(heads: Heads, repository: Repository) -> bool:
    """Whether the history of the repository may prove anything about the pull request."""
    if heads.from_fork is not False or not heads.source:
        return False
    return bool(heads.merge) if heads.state == "MERGED" else heads.target_branch == repository.default_branch


def missing(heads: Heads, ancestry: Ancestry) -> list[str]:
    """What must be known of it and is not."""
    ends = [heads.source, heads.merge] if heads.state == "MERGED" else [heads.source]
    return [sha for sha in ends if sha and ancestry.find(sha) is None]


def tell(heads: Heads, ancestry: Ancestry, targets: Targets) -> tuple[str, set[str]] | None:
    """The kind of pull request, and the hashes of its commits; None where the history does not prove them."""
    source = ancestry.find(heads.source)
    if source is None:
        return None
    if heads.state != "MERGED":
        return _tell_unmerged(heads, ancestry, source) if heads.state == "OPEN" or targets.past else None
    merge = ancestry.find(heads.merge)
    told = None if merge is None else _tell_merged(heads, ancestry, source, merge, frozen=targets.frozen)
    if told is None:
        return None
    kind, hashes = told
    return kind + CLOSED if heads.closes_source else kind, hashes


def _tell_merged(
    heads: Heads, ancestry: Ancestry, source: str, merge: str, *, frozen: bool
) -> tuple[str, set[str]] | None:
    target = ancestry.find(heads.target)
    if merge == source:
        hashes = ancestry.difference(source, target) if target else None
        # The target had at least what was told once, and not the source: one commit leaves no place in between.
        return ("fast-forwarded", hashes) if hashes and (frozen or len(hashes) == 1) else None
    if not ancestry.parents(merge):
        return None
    onto, *brought = ancestry.parents(merge)
    hashes = ancestry.difference(source, onto)
    # Without any, the target had the source before that commit: it is not the one that brought it there.
    if not hashes or merge in hashes:
        return None
    if brought in ([], [source]):
        return "merged" if brought else "squashed", hashes
    # Copies of the source's commits were merged, or this is another's merge: where the target was speaks against that.
    copies = ancestry.difference(brought[0], onto) if len(brought) == 1 and target == onto else None
    return ("rebased", hashes) if copies is not None and (frozen or len(copies) == len(hashes)) else None


def _tell_unmerged(heads: Heads, ancestry: Ancestry, source: str) -> tuple[str, set[str]] | None:
    target = ancestry.find(heads.target)
    if target not in ancestry.branch:
        return None
    least = ancestry.beside_branch(source)
    if least is None or least != ancestry.difference(source, target):
        return None
    return heads.state.lower(), least
