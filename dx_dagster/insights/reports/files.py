"""Report files: the form that `dx studio reports init` writes, checked field by field with the line of a fault."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, cast, get_args

import yaml

from dx_dagster.insights.reports.dx_fields import CONFIG_FIELDS, REPORT_FIELDS, TILE_FIELDS, VARIABLE_FIELDS
from dx_dagster.insights.reports.variables import KNOWN

ChartType = Literal["line", "pie", "stacked_bar", "stacked_area", "scatter", "table"]
CHART_TYPES: tuple[ChartType, ...] = get_args(ChartType)
SHIPPED = Path(__file__).parent / "shipped"

_SUFFIXES = (".yaml", ".yml")
_MOST_BYTES = 256 * 1024
_MOST_FILES, _MOST_TILES = 200, 40
_MOST_DEPTH = 10
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_UNSTORABLE = re.compile(r"[\x00\ud800-\udfff]")
_UNTITLED = "Untitled"


class FileError(Exception):
    """A file is no report; the message says what is wrong and in which line."""


@dataclass(frozen=True)
class Tile:
    """A query and how it is shown.

    Attributes:
        name: of the tile in addresses.
        x: the column of the horizontal axis, or that of a pie's labels.
        ys: the columns with numbers.
        group: the column whose values split each series.
    """

    name: str
    title: str
    description: str
    sql: str
    chart_type: ChartType
    x: str = ""
    ys: tuple[str, ...] = ()
    group: str = ""
    is_clustered: bool = False
    is_horizontal: bool = False
    x_label: str = ""
    y_label: str = ""


@dataclass(frozen=True)
class Report:
    """A report.

    Attributes:
        name: of the file, without its ending: the address.
        defaults: values of the variables that the report declares itself.
    """

    name: str
    title: str
    description: str
    tiles: tuple[Tile, ...]
    defaults: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class Problem:
    """A file that is no report, and why."""

    name: str
    file: str
    reason: str


@dataclass(frozen=True)
class Catalogue:
    """All reports by name, and the files that are none."""

    reports: Mapping[str, Report]
    problems: Sequence[Problem]


class Reports:
    """The reports of an installation: those of its folder, and those of the package. A file is read once it changes.

    `taken` are the names of other pages.
    """

    def __init__(self, folder: Path, taken: Iterable[str] = ()) -> None:
        self._folder, self._taken = folder, frozenset(taken)
        self._read: dict[Path, tuple[object, Report | str]] = {}

    def catalogue(self) -> Catalogue:
        """What there is now. A report of the folder replaces one of the package with the same name."""
        reports: dict[str, Report] = {}
        problems: list[Problem] = []
        files, too_many = _files(self._folder)
        for file in files:
            found: Report | str = self._report(file)
            if isinstance(found, Report):
                found = self._with_unique_names(found, reports)
            if isinstance(found, Report):
                reports[found.name] = found
            else:
                problems.append(Problem(file.stem, file.name, found))
        if too_many:
            problems.append(
                Problem("", str(self._folder), f"holds more than {_MOST_FILES} files: the rest is left out")
            )
        named = {problem.name for problem in problems} | {one.title for one in reports.values()} | set(reports)
        for file in _files(SHIPPED)[0]:
            found = self._report(file)
            if isinstance(found, Report) and not {found.name, found.title} & named:
                reports[found.name] = found
        ordered = sorted(reports.values(), key=lambda one: (one.title.casefold(), one.name))
        return Catalogue({one.name: one for one in ordered}, problems)

    def _with_unique_names(self, found: Report, others: Mapping[str, Report]) -> Report | str:
        if found.name in self._taken:
            return f"another page has the address {found.name}: give the file another name"
        if found.name in others:
            return "another file has this name with another ending: remove one of them"
        if any(other.title == found.title for other in others.values()):
            return f"another file has the name {found.title!r} too: change one of them"
        return found

    def _report(self, file: Path) -> Report | str:
        """The file's report, or why it is none."""
        try:
            status = file.stat()
            state = (status.st_mtime_ns, status.st_size, status.st_ino)
            known = self._read.get(file)
            if known is not None and known[0] == state:
                return known[1]
            found: Report | str = read(file)
        except FileError as error:
            found = str(error)
        except OSError as error:
            return f"cannot be read: {error.strerror}"
        self._read[file] = state, found
        return found


def _files(folder: Path) -> tuple[list[Path], bool]:
    """The files of a folder that may be reports, and whether there are more."""
    try:
        files = sorted(path for path in folder.iterdir() if path.suffix.lower() in _SUFFIXES and path.is_file())
    except OSError:
        return [], False
    return files[:_MOST_FILES], len(files) > _MOST_FILES


def read(file: Path) -> Report:
    """The report in the file.

    Raises:
        FileError: there is none.
        OSError: the file cannot be read.
    """
    if not file.stem.isprintable() or "/" in file.stem:
        raise FileError("has a name with control characters")
    with file.open("rb") as opened:
        content = opened.read(_MOST_BYTES + 1)
    if len(content) > _MOST_BYTES:
        raise FileError(f"is larger than {_MOST_BYTES // 1024} KB")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise FileError(f"line {line}: is not UTF-8 text") from None
    return replace(_report(_composed(text)), name=file.stem)


def _composed(text: str) -> yaml.Node:
    """The document as nodes, which know their lines.

    Aliases are refused: a few of them can stand for millions of nodes.
    """
    depth = 0
    try:
        for event in yaml.parse(text, Loader=_LOADER):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if isinstance(event, yaml.AliasEvent):
                raise FileError(f"line {event.start_mark.line + 1}: aliases (*{event.anchor}) are not allowed")
            if isinstance(event, yaml.ScalarEvent) and _UNSTORABLE.search(event.value):
                raise FileError(f"line {event.start_mark.line + 1}: has a character that no database stores")
            if depth > _MOST_DEPTH:
                raise FileError(f"line {event.start_mark.line + 1}: nothing in a report is nested so deeply")
        node = yaml.compose(text, Loader=_LOADER)
    except yaml.MarkedYAMLError as error:
        line = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        raise FileError(f"{line}is not valid YAML: {error.problem or error.context}") from None
    except yaml.YAMLError as error:
        raise FileError(f"is not valid YAML: {' '.join(str(error).split())[:200]}") from None
    if node is None:
        raise FileError("is empty")
    return cast("yaml.Node", node)


def _report(root: yaml.Node) -> Report:
    fields = _fields(root, "a report", REPORT_FIELDS)
    title = _text(fields, "name")
    if not title:
        raise FileError(f"line {_line(fields.get('name', root))}: a report needs a name")
    tiles = fields.get("tiles")
    if not isinstance(tiles, yaml.SequenceNode) or not tiles.value:
        raise FileError(f"line {_line(tiles or root)}: a report needs tiles, as a list")
    if len(tiles.value) > _MOST_TILES:
        raise FileError(
            f"line {_line(tiles)}: a report has {_MOST_TILES} tiles at most, and this one {len(tiles.value)}"
        )
    return Report(
        "",
        title,
        _text(fields, "description"),
        tuple(_named(_tile(node) for node in tiles.value)),
        dict(_defaults(fields.get("variables"))),
    )


def _named(tiles: Iterable[Tile]) -> Iterator[Tile]:
    """The tiles with names for addresses, made of their titles."""
    names: set[str] = set()
    for tile in tiles:
        short = re.sub(r"[^a-z0-9]+", "-", tile.title.lower()).strip("-")[:60].strip("-") or "tile"
        name, number = short, 1
        while name in names:
            number += 1
            name = f"{short}-{number}"
        names.add(name)
        yield replace(tile, name=name)


def _tile(node: yaml.Node) -> Tile:
    fields = _fields(node, "a tile", TILE_FIELDS)
    sql = _text(fields, "sql")
    if not sql.strip():
        raise FileError(f"line {_line(fields.get('sql', node))}: a tile needs sql")
    chart_type = _text(fields, "chart_type")
    if chart_type not in CHART_TYPES:
        raise FileError(
            f"line {_line(fields.get('chart_type', node))}: chart_type is {chart_type[:60]!r}, and there are "
            f"{', '.join(CHART_TYPES)}"
        )
    tile = Tile(
        "",
        _text(fields, "title").strip() or _UNTITLED,
        _text(fields, "description"),
        sql,
        chart_type,
    )
    given = fields.get("chart_config")
    config = {} if given is None or _is_null(given) else _fields(given, "chart_config", CONFIG_FIELDS)
    return tile if chart_type == "table" else _configured(tile, config, given or node)


def _configured(tile: Tile, config: Mapping[str, yaml.Node], node: yaml.Node) -> Tile:
    x_name, y_name = ("labelColumn", "valueColumn") if tile.chart_type == "pie" else ("xAxis", "yAxes")
    for name in (x_name, y_name):
        if name not in config or not _columns(config[name], name):
            raise FileError(f"line {_line(config.get(name, node))}: chart_config of a {tile.chart_type} needs {name}")
    return replace(
        tile,
        x=_columns(config[x_name], x_name)[0],
        ys=_columns(config[y_name], y_name),
        group="" if tile.chart_type == "pie" else _text(config, "groupByColumn"),
        is_clustered=_text(config, "groupingMode") == "clustered",
        is_horizontal=_text(config, "orientation") == "horizontal",
        x_label=_text(config, "xAxisLabel"),
        y_label=_text(config, "yAxisLabel"),
    )


def _columns(node: yaml.Node, name: str) -> tuple[str, ...]:
    """Names of columns: one, a list, or a list of mappings with a column each."""
    if isinstance(node, yaml.ScalarNode):
        return () if _is_null(node) or not node.value else (node.value,)
    if isinstance(node, yaml.SequenceNode):
        return tuple(column for one in node.value for column in _columns(one, name))
    fields = _fields(node, name, None)
    for key in ("column", "name", "field", "key"):
        if key in fields:
            return _columns(fields[key], name)
    raise FileError(f"line {_line(node)}: {name} names no column")


def _defaults(node: yaml.Node | None) -> Iterator[tuple[str, tuple[str, ...]]]:
    """The variables that DX does not define, with the values that they have by default."""
    if node is None or _is_null(node):
        return
    if not isinstance(node, yaml.SequenceNode):
        raise FileError(f"line {_line(node)}: variables is not a list")
    for one in node.value:
        fields = _fields(one, "a variable", VARIABLE_FIELDS)
        name = _text(fields, "name").removeprefix("$")
        if not _VARIABLE.fullmatch(name):
            raise FileError(f"line {_line(one)}: {name[:60]!r} is no name of a variable")
        values = fields.get("default_values")
        if name not in KNOWN:
            yield name, () if values is None else _columns(values, "default_values")


def _fields(node: yaml.Node, what: str, known: frozenset[str] | None) -> dict[str, yaml.Node]:
    """The fields of a mapping; `known` are those that there are, None for any."""
    if not isinstance(node, yaml.MappingNode):
        raise FileError(f"line {_line(node)}: {what} is not a mapping of fields to values")
    fields: dict[str, yaml.Node] = {}
    for key, value in node.value:
        name = str(key.value)[:60]
        if not isinstance(key, yaml.ScalarNode) or (known is not None and name not in known):
            raise FileError(f"line {_line(key)}: {what} has no field {name!r}")
        if name in fields:
            raise FileError(f"line {_line(key)}: {what} has the field {name} twice")
        fields[name] = value
    return fields


def _text(fields: Mapping[str, yaml.Node], name: str) -> str:
    node = fields.get(name)
    if node is None or _is_null(node):
        return ""
    if not isinstance(node, yaml.ScalarNode):
        raise FileError(f"line {_line(node)}: {name} is not a text")
    return str(node.value)


def _is_null(node: yaml.Node) -> bool:
    return bool(node.tag == "tag:yaml.org,2002:null")


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1
