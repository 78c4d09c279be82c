"""The words of others, Bitbucket's above all, within sentences of ours: some end with a full stop, some do not."""

import re
from collections.abc import Iterable

_ENDED = re.compile(r"[.!?…][\"')\]]*$")


def sentence(words: str) -> str:
    """The words with one full stop at their end, whatever they came with, so that a sentence may follow."""
    trimmed = words.rstrip(" :;,\n")
    return trimmed if not trimmed or _ENDED.search(trimmed) else f"{trimmed}."


def clause(words: str) -> str:
    """The words without the full stop at their end, so that a sentence may go on after them."""
    return words.rstrip().removesuffix(".")


def series(texts: Iterable[str]) -> str:
    """Texts behind one another: after a full stop as a sentence of its own, elsewhere after a semicolon."""
    joined = ""
    for text in dict.fromkeys(text.strip() for text in texts):
        joined += f"{'' if not joined else ' ' if _ENDED.search(joined) else '; '}{text}"
    return joined
