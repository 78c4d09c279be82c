"""Parses names of workspaces. It loads nothing else: each command parses its arguments before it begins."""

import re

_BITBUCKET = re.compile(r"^(https?://)?(www\.)?bitbucket\.org/+", re.IGNORECASE)
_LONGEST = 4000  # characters; longer than any known address
_SLUG = re.compile(r"[A-Za-z0-9_.{}-]+")


class GivenError(ValueError):
    """The input is invalid. The message describes the expected form and contains no secret."""


def workspace_slug(given: str) -> str:
    """The name of a workspace, from the name itself or any address within the workspace.

    Raises:
        GivenError: it is not one.
    """
    trimmed = given.strip()
    slug = _BITBUCKET.sub("", trimmed).strip("/")
    if slug != trimmed:
        slug = slug.partition("/")[0].partition("?")[0]
    if not _SLUG.fullmatch(slug) or slug.strip(".") == "" or len(slug) > _LONGEST:
        raise GivenError(
            f"{given[:100]!r} is not a valid workspace name. Use the first part of the workspace's address: for "
            "https://bitbucket.org/acme/ it is acme."
        )
    return slug
