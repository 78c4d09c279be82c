"""Requests the whole hashes of abbreviated ones that no stored list of commits contains."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from dx_dagster.bitbucket import NotFound, cursor, endpoints, fetch_object
from dx_dagster.frames.reading import text
from dx_dagster.importer.commits.loading import INCLUDED, named_by
from dx_dagster.importer.each import OF_ONE_REQUEST, batches, lacks_scope
from dx_dagster.importer.each_pull import PullRow
from dx_dagster.importer.workspace import Workspace
from dx_dagster.warehouse.imported import hashes, pulls
from dx_dagster.warehouse.imported.marks import Repository


@dataclass
class Resolved:
    """What is known about some abbreviations: whole hashes by abbreviation, and those that Bitbucket does not have."""

    whole: dict[str, str] = field(default_factory=dict)
    gone: set[str] = field(default_factory=set)

    def settles(self, row: PullRow) -> bool:
        """Whether nothing is left to request about the pull request."""
        return all(short in self.whole or short in self.gone for short in short_hashes(row))

    def lacks(self, row: PullRow) -> bool:
        """Whether Bitbucket does not have one of its commits."""
        return any(short in self.gone for short in short_hashes(row))


def short_hashes(row: PullRow) -> list[str]:
    """The abbreviated hashes of a pull request that `stale.pulls_with_short_hashes` has found."""
    return [sha for sha in row.version.split() if len(sha) < 40]  # noqa: PLR2004 - characters of a whole hash


async def resolve_together(
    workspace: Workspace, repository: Repository, head: str | None, shorts: Collection[str]
) -> Resolved:
    """Requests many commits of one repository with a few requests; leaves out what these do not show.

    `head`: of the default branch, whose commits are stored.
    """
    resolved = Resolved()
    for batch in batches(sorted(shorts), INCLUDED):
        wanted: Sequence[str] = batch
        while wanted:
            try:
                await _list(workspace, repository, head, wanted, resolved)
                break
            except NotFound as error:
                # Bitbucket names the revisions that it no longer has; the others may be requested again.
                gone = named_by(error, wanted)
                if not gone:
                    break
                resolved.gone |= gone
                wanted = [short for short in wanted if short not in gone]
            except OF_ONE_REQUEST as error:
                if lacks_scope(error):
                    raise
                break  # each will be requested by itself
    return resolved


async def _list(
    workspace: Workspace, repository: Repository, head: str | None, wanted: Sequence[str], resolved: Resolved
) -> None:
    """Reads the list that begins at the wanted commits, while that takes fewer requests than single ones."""
    left = set(wanted)
    endpoint = endpoints.commits(workspace.slug, repository.source_id, wanted, [head] if head else [])
    async for page in cursor(workspace.client, endpoint):
        for sha in (text(value.get("hash")) for value in page.values):
            for short in [one for one in left if sha and sha.startswith(one)]:
                resolved.whole[short] = sha or ""
                left.remove(short)
        if not left or 2 * page.number >= len(wanted):
            return


async def resolve(workspace: Workspace, row: PullRow) -> Resolved:
    """Requests each commit of one pull request by itself."""
    resolved = Resolved()
    for short in short_hashes(row):
        endpoint = endpoints.commit(workspace.slug, row.repository.source_id, short)
        try:
            value = await fetch_object(workspace.client, endpoint, "hash")
        except NotFound:
            resolved.gone.add(short)
        else:
            if sha := text(value.get("hash")):
                resolved.whole[short] = sha
    await store(workspace, [row], resolved.whole)
    return resolved


async def store(workspace: Workspace, rows: Sequence[PullRow], whole: Mapping[str, str]) -> None:
    """Stores whole hashes, by abbreviation; the hashes of these pull requests need no request any more."""
    found = [(row.id, whole[short]) for row in rows for short in short_hashes(row) if short in whole]
    async with workspace.warehouse.transaction() as transaction:
        await hashes.complete(transaction, found)
        resolved = await hashes.of_pulls(transaction, [row.id for row in rows])
        marks = [(row, resolved[row.id]) for row in rows if row.id in resolved]
        await pulls.set_marks(transaction, "hashes_resolved_for", marks)
