"""Stretches of like entries save time, and nothing else: whatever the file, the rows are the parser's."""

from __future__ import annotations

import io
from contextlib import nullcontext, suppress
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batch_snapshot import manifest
from batch_snapshot.errors import ManifestError
from batch_snapshot.manifest import includes, nodes, stretches
from batch_snapshot.manifest.nodes import Document
from batch_snapshot.manifest.reading import ManifestPass
from batch_snapshot.manifest.stretches import Ahead, Parted, Stretch, UnusualTextError
from tests.support import rewriting
from tests.support.strategies import patient

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from batch_snapshot.models import Row

HEAD = "version: 1\nname: n\ndefaults: {catalog: Sandbox}\n"
ACCOUNTS = "accounts:\n  a: {}\n  b: {}\n"
#: More than are worth it, and their lines.
MANY = stretches.LEAST + 4

Read = tuple[list[tuple["Row", int]], list[str], list[str]]


def flow(numbers: Iterable[int], indent: str = "", more: str = "") -> str:
    return "".join(f"{indent}- {{engagement: eng-{n:014d}, resource: O{n + 1}{more}}}\n" for n in numbers)


def block(numbers: Iterable[int], indent: str = "", more: str = "") -> str:
    return "".join(
        f"{indent}- engagement: eng-{n:014d}\n{indent}  resource: O{n + 1}\n{more}" for n in numbers
    )


def read(path: Path, *, by_stretches: bool) -> Read:
    """The rows with their lines, the warnings and the problems."""
    reading = ManifestPass(path, stretches=by_stretches)
    found = list(reading.rows())
    return found, reading.warnings.lines(), reading.problems.lines()


def assert_as_the_parser_has_it(path: Path, content: str | bytes) -> Read | None:
    """Both ways come to the same, or what is wrong is left to the parser; returns what is right."""
    rewriting.write(path, content.encode("utf-8", "surrogateescape") if isinstance(content, str) else content)
    plain = read(path, by_stretches=False)
    with suppress(UnusualTextError) if plain[2] else nullcontext():
        assert read(path, by_stretches=True) == plain
    return None if plain[2] else plain


# -- what is taken -------------------------------------------------------------------------------------

PAIRS = {
    "flow": flow(range(MANY)),
    "indented": flow(range(MANY), "    "),
    "spaced": flow(range(MANY)).replace("{", "{ ").replace("}", " }"),
    "block": block(range(MANY)),
    "indented block": block(range(MANY), "  "),
    "an account": flow(range(MANY), more=", account: a"),
    "an account in a block": block(range(MANY), more="  account: b\n"),
    "sorted": flow(range(MANY)).replace("{e", "{account: a, e").replace(", r", ", catalog: AWS, r"),
    "sorted block": block(range(MANY), more="  template: Other\n").replace("- e", "- account: a\n  e"),
    "quoted": flow(range(MANY)).replace("engagement: ", 'engagement: "').replace(", r", '", r'),
    "single quotes": flow(range(MANY)).replace("resource: ", "resource: '").replace("}", "'}"),
    "several": flow(range(MANY)).replace("resource: ", "resources: [O7, ").replace("}", "]}"),
    "line ends of another kind": flow(range(MANY)).replace("\n", "\r\n"),
}


def complain(line: int, text: str) -> None:
    pytest.fail(f"{line}: {text}")


def taken(nodes_: Iterable[nodes.Node]) -> int:
    """The entries that no parser has read."""
    return sum(len(node.entries) for node in nodes_ if isinstance(node, Stretch))


def taken_out(path: Path) -> int:
    with path.open("rb") as file:
        parted = Parted(file)
        return taken(node for _, node in Document(parted, complain, parted).sections())


@pytest.mark.parametrize("name", PAIRS)
def test_long_stretches_of_every_form_are_taken(tmp_path, name):
    path = tmp_path / "m.yaml"
    defaults = HEAD.replace("}", ", account: a}") + ACCOUNTS
    assert assert_as_the_parser_has_it(path, f"{defaults}pairs:\n{PAIRS[name]}") is not None
    assert taken_out(path) == MANY - 3, "all but the first two and the last one"


def test_of_a_long_manifest_the_parser_reads_next_to_nothing(tmp_path):
    path = tmp_path / "m.yaml"
    rows = 40_000
    found = assert_as_the_parser_has_it(path, HEAD + "pairs:\n" + flow(range(rows)))
    assert found is not None
    assert [line for _, line in found[0]] == list(range(5, rows + 5))
    assert taken_out(path) > 0.999 * rows


@pytest.mark.parametrize("more", ["", ", account: a, template: Other", ", template: a-b"])
def test_objects_of_a_line_each_are_taken(tmp_path, more):
    lines = flow(range(MANY), more=more)[2:].replace("\n- ", "\n")
    for key in ("engagement", "resource", "account", "template"):
        lines = lines.replace(f"{key}: ", f'"{key}": "')
    path, pairs = tmp_path / "m.yaml", tmp_path / "p.ndjson"
    pairs.write_text(lines.replace(", ", '", ').replace("}", '"}'), "utf-8")
    found = assert_as_the_parser_has_it(path, HEAD + ACCOUNTS + "include: [p.ndjson]\n")
    assert (found is None) is ("a-b" in more or not more), "a faulty template, or no account"
    with pairs.open("rb") as file:
        assert taken(includes.ndjson_entries(Ahead(file), complain)) == MANY - 1


@pytest.mark.parametrize(
    ("header", "row", "number"),
    [
        ("engagement,resource", "{0},{1}", MANY),
        ("engagement, resource ,account", "{0},{1},b", MANY),
        ("account,engagement,template,resource,catalog", "a,{0},,{1},AWS", MANY),
        ("resource,engagement", "{1},{0}", 0),
        ("engagement,resources", "{0},{1};O7", 0),
        ("engagement,resource", '{0},"{1}"', 0),
    ],
)
def test_rows_under_a_header_are_taken(tmp_path, header, row, number):
    path, pairs = tmp_path / "m.yaml", tmp_path / "p.csv"
    rows = [row.format(f"eng-{n:014d}", f"O{n + 1}") for n in range(MANY)]
    pairs.write_text("\n".join([header, *rows, "", *rows[:2], ""]), "utf-8")
    text = HEAD.replace("}", ", account: a}") + ACCOUNTS + "include: [p.csv]\n"
    found = assert_as_the_parser_has_it(path, text)
    assert found is not None
    assert found[0][-1][1] == MANY + 4
    with pairs.open("rb") as file:
        assert taken(includes.csv_entries(Ahead(file), complain)) == number


# -- what only looks like it ---------------------------------------------------------------------------

LINES = flow(range(MANY))
DEEP = flow(range(MANY), "    ")
ENTRY = "- {engagement: eng-0123456789abcd, resource: O1}\n"

ODD = {
    "a text in quotes": f'pairs:\n{ENTRY}- engagement: "\n{DEEP}    "\n  resource: O1\n',
    "a block of text": f"pairs:\n{ENTRY}- engagement: |\n{DEEP}  resource: O1\n",
    "a block of text that is a section": f"note: |\n{DEEP}pairs:\n{ENTRY}",
    "another section": f"pairs:\n{ENTRY}include:\n{LINES}",
    "a list within a list": f"pairs:\n- \n{DEEP}{ENTRY}",
    "a list within a list, at once": f"pairs:\n- - {DEEP[6:]}{ENTRY}",
    "a list in a mapping": f"pairs:\n- engagement:\n{DEEP}  resource: O1\n",
    "one text over many lines": f"pairs:\n- engagement: a\n{DEEP}",
    "square brackets": f"pairs: [\n{LINES}]\n",
    "a comment behind": f"pairs:\n{LINES[:-1]} # told\n",
    "a value behind": f"pairs:\n{LINES}  : x\n",
    "a text that goes on": f"pairs:\n{block(range(MANY))}    more\n",
    "a key that follows": f"pairs:\n{block(range(MANY))}  catalog: AWS\n",
    "a key twice": f"pairs:\n{flow(range(MANY), more=', catalog: AWS, catalog: AWS')}",
    "a catalog that is none": f"pairs:\n{flow(range(MANY), more=', catalog: Moon')}",
    "an account that is none": f"pairs:\n{flow(range(MANY), more=', account: x')}",
    "a null": f"pairs:\n{flow(range(MANY), more=', template: null')}",
    "an id that is none": f"pairs:\n{LINES}{LINES.replace('eng-', 'xng-')}",
    "a resource that is none": f"pairs:\n{LINES}{LINES.replace('O1}', 'X1}')}{LINES}",
    "quotes that don't match": f"pairs:\n{LINES}{LINES.replace(': eng', ': ' + chr(34) + 'eng')}",
    "a key twice within": f"pairs:\n{LINES}{ENTRY.replace('}', ', catalog: AWS, catalog: AWS}')}{LINES}",
    "an account that is none within": f"pairs:\n{LINES}{ENTRY.replace('}', ', account: x}')}{LINES}",
    "the same again": f"pairs:\n{LINES}# again\n\n{LINES}",
    "a template not known today": f"pairs:\n{LINES}#\n{flow(range(MANY, 2 * MANY), more=', template: New')}",
    "defaults that follow": f"pairs:\n{LINES}defaults: {{}}\n",
    "a template in defaults that follow": f"pairs:\n{LINES}accounts: {{a: {{region: eu-west-1}}}}\n",
    "no end of the last line": f"pairs:\n{LINES[:-1]}",
    "an end of the document": f"pairs:\n{LINES}...\n",
    "two documents": f"pairs:\n{LINES}---\n{LINES}",
    "a broken end": f"pairs:\n{LINES}}}\n",
    "deeper and deeper": f"pairs:\n{LINES} {LINES}",
    "less deep": f"pairs:\n{DEEP}{LINES}",
    "nothing but sections": "pairs:\n",
}


@pytest.mark.parametrize("size", [64, 700, stretches.BLOCK])
@pytest.mark.parametrize("name", ODD)
def test_what_only_looks_like_a_stretch_is_left_to_the_parser(tmp_path, monkeypatch, name, size):
    monkeypatch.setattr(stretches, "BLOCK", size)
    head = "version: 1\nname: n\n"
    for top in (HEAD, HEAD.replace("}", ", account: default}"), head):
        assert_as_the_parser_has_it(tmp_path / "m.yaml", top + ODD[name])
        assert_as_the_parser_has_it(tmp_path / "m.yaml", top + ODD[name].replace("\n", "\r\n"))


@pytest.mark.parametrize("end", ["\r", "\x85", "\u2028", "\u2029"])
def test_lines_that_only_the_parser_counts_mislead_nobody(tmp_path, end):
    """A false count must not make a text in quotes pass for entries."""
    shift = f"# one{end}# two\n"
    entry = '- {engagement: "' + ENTRY[15:]
    path = tmp_path / "m.yaml"
    for content in (LINES, f"{entry}{LINES}", f"- engagement: '\n{LINES}'\n", ODD["a block of text"]):
        assert_as_the_parser_has_it(path, f"{HEAD}{shift}pairs:\n{ENTRY}{content}")
        assert_as_the_parser_has_it(path, f"{HEAD}pairs:\n{ENTRY}{shift}{content}{LINES}")


def given_out(content: bytes, tell: Callable[[Parted], None]) -> bytes:
    """What a parser gets to read that tells by `tell` how far it has come."""
    parted, portions = Parted(io.BytesIO(content)), []
    while portion := parted.read():
        portions.append(portion)
        tell(parted)
    return b"".join(portions)


def told(engagement: str, column: int) -> Callable[[Parted], None]:
    node = nodes.Fields({"engagement": nodes.Scalar(engagement, 0)}, {}, 0)
    return lambda parted: parted.told(node, column)


FIRST = f"eng-{0:014d}"


@pytest.mark.parametrize(
    ("tell", "all_"),
    [
        (told(FIRST, 2), False),
        (lambda _: None, True),
        (told(FIRST, 4), True),
        (told("eng-0123456789abcd", 2), True),
        (lambda parted: parted.told(nodes.Scalar(FIRST, 0), 2), True),
    ],
)
def test_nothing_is_taken_out_before_the_parser_has_told_of_the_first_entry(tell, all_):
    assert (given_out(LINES.encode(), tell) == LINES.encode()) is all_


@pytest.mark.parametrize("mark", [b"\xff\xfe", b"\xfe\xff"])
def test_nothing_is_taken_out_of_other_encodings(mark):
    content = mark + b"#\n" + LINES.encode()
    assert given_out(content, told(FIRST, 2)) == content


@pytest.mark.parametrize("end", [b"#\r#\n", "#\x85#\n".encode(), "#\u2028\n".encode()])
def test_nothing_is_taken_out_where_lines_cannot_be_counted(end):
    content = end + LINES.encode()
    assert given_out(content, told(FIRST, 2)) == content
    assert given_out(LINES.encode() + content, told(FIRST, 2)).endswith(content)


def test_lines_are_counted_anew_in_each_file(tmp_path):
    (tmp_path / "more.yaml").write_text(f"{LINES}# told\n{ENTRY}{LINES}", "utf-8")
    (tmp_path / "p.csv").write_text("resource,engagement\nO1,eng-0123456789abcd\n", "utf-8")
    found = assert_as_the_parser_has_it(
        tmp_path / "m.yaml", f"{HEAD}pairs:\n{LINES}include: [more.yaml, p.csv]\n"
    )
    assert found is not None
    assert found[0][-1][1] == 2


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "latin-1"])
def test_any_encoding_is_the_parsers_affair(tmp_path, encoding):
    text = f"{HEAD}# é\npairs:\n{LINES}"
    for content in (text.encode(encoding), b"\xff\xfe" + text.encode(), b"\xfe\xff" + text.encode()):
        assert_as_the_parser_has_it(tmp_path / "m.yaml", content)


pieces = st.one_of(
    st.sampled_from([*ODD.values(), *PAIRS.values()]).map(lambda text: text.removeprefix("pairs:\n")),
    st.builds(
        lambda first, number, style, indent: style(range(first, first + number), indent),
        st.integers(0, 50),
        st.integers(0, 60),
        st.sampled_from([flow, block]),
        st.sampled_from(["", "  "]),
    ),
    st.sampled_from(["\n", "# told\n", "  # deeper\n", "\r", "'\n", '"\n', "|\n", "- ", "- x\n", "\u2028"]),
)


@given(st.lists(pieces, max_size=6), st.sampled_from([100, 1000, stretches.BLOCK]))
@settings(patient, max_examples=300)
def test_whatever_the_file_the_rows_are_the_parsers(tmp_path_factory, parts, size):
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(stretches, "BLOCK", size)
        for account in ("", ", account: a"):
            top = HEAD.replace("}", account + "}") + ACCOUNTS
            assert_as_the_parser_has_it(path, f"{top}pairs:\n{''.join(parts)}")


lines_of_pairs = st.lists(
    st.one_of(
        st.just("".join(f"eng-{n:014d},O{n}\n" for n in range(MANY))),
        st.just("".join(f'{{"engagement":"eng-{n:014d}","resource":"O{n}"}}\n' for n in range(MANY))),
        st.sampled_from(
            ["\n", '"', "eng-0123456789abcd,O1\n", "\r", "\0", "é\n", '{"engagement":1}\n', "x,y,z\n"]
        ),
    ),
    max_size=6,
)


@given(
    lines_of_pairs, st.sampled_from(["engagement,resource\n", ""]), st.sampled_from([100, stretches.BLOCK])
)
@settings(patient, max_examples=200)
def test_whatever_the_lines_the_rows_are_the_parsers(tmp_path_factory, parts, header, size):
    folder = tmp_path_factory.getbasetemp()
    name = "any.csv" if header else "any.ndjson"
    rewriting.write(folder / name, (header + "".join(parts)).encode())
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(stretches, "BLOCK", size)
        assert_as_the_parser_has_it(folder / "lines.yaml", f"{HEAD}include: [{name}]\n")


def test_what_is_wrong_behind_a_stretch_is_told_with_its_line(tmp_path):
    path = tmp_path / "m.yaml"
    path.write_text(f"{HEAD}pairs:\n{LINES}- {{engagement: x, resource: O1}}\n", "utf-8")
    with pytest.raises(ManifestError, match=f"m.yaml:{5 + MANY}: engagement"):
        manifest.load(path)


@pytest.mark.parametrize("included", ["more.yaml", "more.ndjson", "more.csv"])
def test_what_is_wrong_before_any_stretch_is_not_read_again(tmp_path, included):
    """None is taken from there on, in no file."""
    path = tmp_path / "m.yaml"
    wrong = ["- {engagement: x, resource: O1}\n", "- {engagement: y, resource: O1}\n"]
    path.write_text(f"{HEAD}pairs:\n{wrong[0]}{LINES}{wrong[1]}include: [{included}]\n", "utf-8")
    (tmp_path / "more.yaml").write_text(LINES, "utf-8")
    objects = "".join(f'{{"engagement":"eng-{n:014d}","resource":"O{n}"}}\n' for n in range(1, MANY))
    (tmp_path / "more.ndjson").write_text(objects, "utf-8")
    rows = "".join(f"eng-{n:014d},O{n}\n" for n in range(1, MANY))
    (tmp_path / "more.csv").write_text(f"engagement,resource\n{rows}", "utf-8")
    found, _, problems = read(path, by_stretches=True)
    lines = [5, 6 + MANY]
    assert [problem.split(": ")[0] for problem in problems] == [f"{path}:{line}" for line in lines]
    assert len(found) >= 2 * MANY - 1
    assert (found, [], problems) == read(path, by_stretches=False)


def test_both_passes_go_the_same_way(tmp_path):
    path = tmp_path / "m.yaml"
    path.write_text(f"{HEAD}pairs:\n{LINES}# again\n{LINES}{ENTRY}", "utf-8")
    listed = manifest.load(path)
    assert listed.stretches
    assert [row.key for row in manifest.rows(listed)] == [
        row.key for row, _ in read(path, by_stretches=False)[0][:MANY]
    ] + [read(path, by_stretches=False)[0][-1][0].key]
    assert listed.keys == {row.key for row in manifest.rows(listed)}
    assert listed.warning_count == MANY
