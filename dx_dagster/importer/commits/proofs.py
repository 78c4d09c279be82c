"""Proves the commits of a pull request from the history of its repository.

They are the commits that its source reaches and its target did not reach when it was merged.

- Merged with a merge commit, rebased or squashed: the target was the merge's first parent.
- Fast-forwarded: the history does not show where the target was. The pull request's own target hash is valid where the
  workspace's other merges show that it is frozen at the merge, and where there is only one commit above it.
- Open, declined or superseded: the target was somewhere between the pull request's own target hash and the current
  head of its branch. Where both give the same commits, so does every commit between them. For closed pull requests this
  holds only where their target hash is known not to be the current head.
- From a fork: the commits are in another repository, and nothing is proven.
"""

from dx_dagster.importer.commits.ancestry import Ancestry, Reached
from dx_dagster.warehouse.imported.commits import Targets
from dx_dagster.warehouse.imported.pulls import Heads

CLOSED = " (branch closed)"


def may_be_proven(heads: Heads) -> bool:
    """Whether the history of the repository may prove the commits of the pull request."""
    return heads.from_fork is False and bool(heads.source) and bool(heads.merge or heads.state != "MERGED")


def ends(heads: Heads) -> list[str]:
    """The hashes that a proof needs, together with all that they reach."""
    return [sha for sha in (heads.source, heads.merge if heads.state == "MERGED" else None) if sha]


def prove(
    heads: Heads, ancestry: Ancestry, targets: Targets, branch: Reached | None = None
) -> tuple[str, set[str]] | None:
    """The kind of pull request and the hashes of its commits; None where the history does not prove them.

    `branch`: what the target branch reaches by now, where that is not the default branch.
    """
    source = ancestry.find(heads.source)
    if source is None:
        return None
    if heads.state != "MERGED":
        return _prove_unmerged(heads, ancestry, source, branch) if heads.state == "OPEN" or targets.past else None
    merge = ancestry.find(heads.merge)
    proof = None if merge is None else _prove_merged(heads, ancestry, source, merge, frozen=targets.frozen)
    if proof is None:
        return None
    kind, hashes = proof
    return kind + CLOSED if heads.closes_source else kind, hashes


def _prove_merged(
    heads: Heads, ancestry: Ancestry, source: str, merge: str, *, frozen: bool
) -> tuple[str, set[str]] | None:
    target = ancestry.find(heads.target)
    if merge == source:
        hashes = ancestry.difference(source, target) if target else None
        # The target reached its hash and not the source: with one commit, nothing lies in between.
        return ("fast-forwarded", hashes) if hashes and (frozen or len(hashes) == 1) else None
    if not ancestry.parents(merge):
        return None
    onto, *brought = ancestry.parents(merge)
    hashes = ancestry.difference(source, onto)
    # Without any, the target reached the source before that commit, so this is not its merge commit.
    if not hashes or merge in hashes:
        return None
    if brought in ([], [source]):
        return "merged" if brought else "squashed", hashes
    # Either copies of the source's commits were merged, or this is another pull request's merge commit; the target hash
    # excludes the latter.
    copies = ancestry.difference(brought[0], onto) if len(brought) == 1 and target == onto else None
    return ("rebased", hashes) if copies is not None and (frozen or len(copies) == len(hashes)) else None


def _prove_unmerged(
    heads: Heads, ancestry: Ancestry, source: str, branch: Reached | None
) -> tuple[str, set[str]] | None:
    target = ancestry.find(heads.target)
    now = ancestry.branch if branch is None else branch
    if target is None or not ancestry.holds(now, target):
        return None
    least = ancestry.beside(source, now)
    if least is None or least != ancestry.difference(source, target):
        return None
    return heads.state.lower(), least
