"""Partial responses: the parameter `fields`."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from dx_dagster.sandbox.rendering import Json

Tree = dict[str, "Tree"]
Part = Callable[[str, Tree], Any]
ABSENT = object()


@dataclass(frozen=True)
class Selection:
    """The three lists of a `fields` parameter as trees of names; `included` None takes the default form.

    A name that does not exist selects nothing and is no error.
    """

    text: str
    included: Tree | None
    added: Tree
    removed: Tree

    @property
    def empty(self) -> bool:
        return self.included is None and not self.added and not self.removed

    def below(self, name: str) -> "Selection":
        """The selection for the items under a name."""
        included = None if self.included is None else self.included.get(name)
        takes_all = included == {} or (self.included is not None and included is None)
        return Selection(
            self.text, None if takes_all else included, self.added.get(name, {}), self.removed.get(name, {})
        )

    def shows(self, name: str) -> bool:
        """Whether a member of the envelope is left in."""
        return (self.included is None or name in self.included) and self.removed.get(name) != {}

    def apply(self, whole: Json) -> Json:
        """The selected parts of an object that is rendered in its default form."""
        return whole if self.empty else self.assemble(whole, lambda name, _: whole.get(name, ABSENT))

    def assemble(self, names: Iterable[str], part: Part) -> Json:
        """The same for an object that is rendered part by part: `names` are those of its default form.

        `part` gets a name and the tree that is asked for below it, and makes its value, or `ABSENT`.
        """
        if self.included is None:
            shown = {name: part(name, {}) for name in names}
        else:
            shown = {}
            for name in self.included:
                shown |= {n: part(n, {}) for n in names} if name == "*" else self._parts(self.included, name, part)
        for name in self.added:
            shown = _merge(shown, self._parts(self.added, name, part))
        return _drop(shown, self.removed) if self.removed else shown

    @staticmethod
    def _parts(tree: Tree, name: str, part: Part) -> Json:
        value = part(name, tree[name])
        return {} if value is ABSENT else {name: _pick(value, tree[name])}


def _pick(value: Any, tree: Tree) -> Any:
    if not tree or "*" in tree:
        return value
    if isinstance(value, list):
        return [_pick(item, tree) for item in value]
    if isinstance(value, dict):
        return {name: _pick(value[name], deeper) for name, deeper in tree.items() if name in value}
    return value


def _merge(left: Json, right: Json) -> Json:
    merged = dict(left)
    for name, value in right.items():
        mine = merged.get(name)
        merged[name] = _merge(mine, value) if isinstance(mine, dict) and isinstance(value, dict) else value
    return merged


def _drop(value: Any, tree: Tree) -> Any:
    if isinstance(value, list):
        return [_drop(item, tree) for item in value]
    if not isinstance(value, dict):
        return value
    kept = {name: item for name, item in value.items() if tree.get(name) != {}}
    return {name: _drop(item, tree[name]) if name in tree else item for name, item in kept.items()}


@lru_cache(maxsize=256)
def parse(text: str) -> Selection:
    """`a.b,c` includes, `+a.b` adds, `-a.b` removes. A plus sign not sent as %2B arrives as a blank, and includes."""
    trees: dict[str, Tree] = {"": {}, "+": {}, "-": {}}
    for item in text.split(","):
        name = item.strip()
        sign = name[:1] if name[:1] in {"+", "-"} else ""
        tree = trees[sign]
        for part in filter(None, name[len(sign) :].split(".")):
            tree = tree.setdefault(part, {})
    return Selection(text, trees[""] or None, trees["+"], trees["-"])
