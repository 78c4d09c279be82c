"""Punctuates quoted messages, which may or may not end with a full stop, within our own sentences."""

import re
from collections.abc import Iterable

_ENDED = re.compile(r"[.!?…][\"')\]]*$")


def sentence(words: str) -> str:
    """The text with one full stop at its end, so that a sentence can follow."""
    trimmed = words.rstrip(" :;,\n")
    return trimmed if not trimmed or _ENDED.search(trimmed) else f"{trimmed}."


def clause(words: str) -> str:
    """The text without a full stop at its end, so that the sentence can go on."""
    return words.rstrip().removesuffix(".")


def series(texts: Iterable[str]) -> str:
    """Joins texts: after a full stop as a new sentence, otherwise after a semicolon."""
    joined = ""
    for text in dict.fromkeys(text.strip() for text in texts):
        joined += f"{'' if not joined else ' ' if _ENDED.search(joined) else '; '}{text}"
    return joined
