"""The section `include`: which further files a manifest has, and in which folder they may be."""

import os
from collections.abc import Collection, Mapping
from glob import escape
from pathlib import Path

from batch_snapshot.files import nearest, open_regular, special_kind
from batch_snapshot.manifest import keys
from batch_snapshot.manifest.header import as_text, check_keys
from batch_snapshot.manifest.problems import Report, quoted, quoted_ascii
from batch_snapshot.manifest.yaml_events import Fields, Node, Scalar, is_unwritten
from batch_snapshot.text import escaped

_COLUMNS = keys.names(keys.PAIR)

#: Key of a pair → the name of its column; None: the file does not hold the key, whatever its columns.
Names = Mapping[str, str | None]

YAML_ENDINGS = frozenset({".yaml", ".yml"})


def problem(text: str, folder: Path, endings: Collection[str], taken: Collection[str]) -> str | None:
    """What is wrong with an included file; `taken` are the files before it, all symbolic links followed."""
    name = quoted(text)
    if not text.isprintable():
        return f"include {name} holds characters that no file's name should"
    if Path(text).is_absolute():
        return f"include {name} is absolute: name it relative to the manifest"
    home = os.path.realpath(folder)
    target = os.path.realpath(folder / text)
    if not Path(target).is_relative_to(home):
        return f"include {name} leaves the manifest's folder: move the file beside the manifest"
    if Path(text).suffix.lower() not in endings:
        return f"include {name} has an unknown ending: known are {', '.join(sorted(endings))}"
    if target in taken:
        return f"include {name} was read before: name each file once"
    return read_problem(Path(target), f"include {name}")


def read_include(node: Node, report: Report) -> tuple[Scalar | None, Names | None]:
    """The file's name (None: a problem was reported), and the names of its columns if they are given."""
    if not isinstance(node, Fields):
        return as_text(node, "include", report, "include is empty: name a file or remove it"), None
    check_keys(node, keys.names(keys.INCLUDE), "an include", report)
    # Where it is missing, it is as if it were empty.
    file, names = node.nodes.get("file", Scalar("", node.line, plain=True)), node.nodes.get("columns")
    text = as_text(file, "file", report, "file is missing in an include: name one, e.g. {file: pairs.csv}")
    if text is None or names is None or is_unwritten(names):
        return text, None
    if Path(text.text).suffix.lower() != ".csv":
        wrong = "only CSV has columns; YAML and NDJSON name the keys of a pair"
        report(node.line_of("columns"), f"columns of {quoted(text.text)}: {wrong}")
        return None, None
    return text, _read_columns(names, report)


def _read_columns(node: Node, report: Report) -> Names:
    from batch_snapshot.manifest.csv_columns import comparable  # most manifests have none

    example = 'e.g. columns: {engagement: "Engagement Id", resource: "Opportunity Id"}'
    if not isinstance(node, Fields):
        report(node.line, f"columns must be a mapping of keys to columns, {example}")
        return {}
    check_keys(node, _COLUMNS, "columns", report)
    names: dict[str, str | None] = {}
    taken: dict[str, str] = {}
    for key in filter(_COLUMNS.__contains__, node.nodes):
        empty = f"the column of engagement is empty: name it, {example}" if key == "engagement" else None
        text = as_text(node.nodes[key], f"the column of {key}", report, empty)
        names[key] = text.text if text else None
        if text and (other := taken.setdefault(comparable(text.text), key)) != key:
            report(
                text.line, f"column {quoted_ascii(text.text)} is named for {other} and for {key}: name two"
            )
    return names


def read_problem(path: Path, what: str) -> str | None:
    """Why `path` cannot be read more than once; None: it can."""
    if kind := special_kind(path):
        return f"{what} is {kind}: it must be a regular file, because it is read more than once"
    try:
        open_regular(path).close()
    except FileNotFoundError:
        near = nearest(path, "*.y*ml" if path.suffix in YAML_ENDINGS else f"*{escape(path.suffix)}")
        return f"{what} does not exist: {f'did you mean {display(near)}?' if near else 'check the path'}"
    except PermissionError as error:
        return f"{what} cannot be read ({error.strerror}): fix its permissions"
    except OSError as error:
        return f"{what} cannot be read: {error.strerror or error}"
    return None


def display(path: Path) -> str:
    return escaped(str(path))
