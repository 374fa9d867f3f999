"""A manifest brought up to date, whatever it looks like: what was there stays, what is new is listed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batch_snapshot import manifest
from batch_snapshot.discovery import discover
from batch_snapshot.discovery.discover import layout, revised
from batch_snapshot.errors import InputError
from tests.support import rewriting
from tests.support.strategies import patient

HEADS = (
    "version: 1\nname: x\ndefaults: {catalog: Sandbox}\n",
    "# a comment\nversion: 1\nname: x\n\ndefaults:\n  catalog: AWS\n",
)
MAPPED = 'include: [{file: crm.csv, columns: {engagement: "Eng Id", resource: Opp}}]  # ours\n'
TAILS = ("", "\n# the end\n", "include: [more.csv]\n", MAPPED)

numbers = st.integers(1, 40)
comments = st.sampled_from(["", "  # mine", "   # engagement: O7"])


@st.composite
def entries(draw: st.DrawFn) -> str:
    engagement, one, other = draw(numbers), draw(numbers), draw(numbers)
    name, comment = f"eng-{engagement:014d}", draw(comments)
    return draw(
        st.sampled_from(
            [
                f"{{engagement: {name}, resource: O{one}}}{comment}",
                f"engagement: {name}{comment}\n  resource: O{one}",
                f'engagement: "{name}"\n  resources: [O{one}, O9{other}]{comment}',
                f"engagement: {name}\n  resources:\n  - O{one}\n  - O9{other}{comment}",
                f"{{engagement: {name},\n   resource: 'O{one}'}}{comment}",
            ]
        )
    )


@st.composite
def texts(draw: st.DrawFn) -> str:
    listed = draw(st.lists(entries(), min_size=1, max_size=4))
    indent = draw(st.sampled_from(["", "  "]))
    lines = [f"- {entry}" for entry in listed]
    pairs = "\n".join(indent + line for entry in lines for line in entry.splitlines())
    text = f"{draw(st.sampled_from(HEADS))}pairs:\n{pairs}{draw(st.sampled_from(['', chr(10)]))}"
    tail = draw(st.sampled_from(TAILS)) if text.endswith("\n") else ""
    text += tail
    return text.replace("\n", "\r\n") if draw(st.booleans()) else text


def rows_of(folder, text: str) -> set[tuple[str, str]]:
    path = folder / "m.yaml"
    rewriting.write(path, text.encode())
    return {(row.engagement, row.resource) for row in manifest.rows(manifest.load(path))}


@given(texts(), st.lists(numbers, max_size=3), st.sets(numbers))
@patient
def test_nothing_is_lost_and_the_new_is_listed(tmp_path_factory, text, new, missing):
    folder = tmp_path_factory.getbasetemp()
    rewriting.write(folder / "more.csv", b"engagement,resource\neng-99999999999999,O99\n")
    rewriting.write(folder / "crm.csv", b"Opp;Eng Id\nO98;eng-99999999999999\n")
    before = rows_of(folder, text)
    gone = {f"O{number}" for number in missing}
    added = [f"{{engagement: eng-1234567890123{number % 10}, resource: O{number}}}" for number in new]

    def is_gone(fields, resource: str) -> bool:
        return resource in gone and not fields["engagement"].startswith("eng-1234567890123")

    after, marked = revised(text, layout(text, "m.yaml"), added, is_gone, "2026-01-31")
    listed = {(f"eng-1234567890123{number % 10}", f"O{number}") for number in new}
    assert rows_of(folder, after) == before | listed
    assert (MAPPED.strip() in after) == (MAPPED.strip() in text)
    if not marked:
        assert after.count("# gone:") == 0
    # Once more changes nothing, and what is found again loses its mark.
    again, _ = revised(after, layout(after, "m.yaml"), [], is_gone, "2026-02-01")
    assert again == after
    clean, _ = revised(after, layout(after, "m.yaml"), [], lambda *_: False, "2026-02-01")
    assert "# gone:" not in clean
    for line in text.splitlines():
        assert line.strip() in clean


@pytest.mark.parametrize(
    ("text", "after"),
    [
        ("version: 1\nname: x\n", "version: 1\nname: x\npairs:\n  - new\n"),
        ("version: 1\nname: x", "version: 1\nname: x\npairs:\n  - new\n"),
        ("version: 1\npairs:\nname: x\n", "version: 1\npairs:\n  - new\nname: x\n"),
        ("pairs: # none yet\nversion: 1\n", "pairs: # none yet\n  - new\nversion: 1\n"),
    ],
)
def test_a_manifest_without_pairs_gets_a_pairs_section(text, after):
    assert revised(text, layout(text, "m"), ["new"], lambda *_: False, "")[0] == after


@pytest.mark.parametrize("pairs", ["[]", "[{engagement: e, resource: O1}]"])
def test_pairs_in_brackets_are_refused(pairs):
    with pytest.raises(InputError, match="m:2: its pairs are in"):
        layout(f"version: 1\npairs: {pairs}\n", "m")


def test_a_new_text_that_lists_other_rows_than_expected_is_refused_and_leaves_no_file(tmp_path):
    text = f"{HEADS[0]}pairs:\n- {{engagement: eng-00000000000001, resource: O1}}\n"
    path = tmp_path / "m.yaml"
    with pytest.raises(InputError, match="cannot be brought up to date line by line"):
        discover._check(path, text, {b"another row"})
    assert list(tmp_path.iterdir()) == []
