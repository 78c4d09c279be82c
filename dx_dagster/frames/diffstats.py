"""What the files of a diffstat add up to; no frame, since a pull request has one row of three numbers."""

from collections.abc import Iterable

from dx_dagster.frames.reading import Json, number


def totals(files: Iterable[Json]) -> tuple[int, int, int]:
    """Added lines, removed lines and the number of files. A file without lines, as a binary one, counts too."""
    added = removed = count = 0
    for file in files:
        added += max(0, number(file.get("lines_added"), 32) or 0)
        removed += max(0, number(file.get("lines_removed"), 32) or 0)
        count += 1
    return added, removed, count
