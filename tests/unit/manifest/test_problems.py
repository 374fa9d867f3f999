"""Problems as objects: place, message and hint."""

import pytest

from batch_snapshot.errors import ManifestError
from batch_snapshot.manifest import load
from batch_snapshot.manifest.problems import problems_as_fields

MANIFEST = """version: 1
name: nightly
defaults: {catalog: sandbox}
pairs:
  - {engagement: eng-0123456789abcd, resource: "0123"}
  - {engagement: eng-0123456789abcd, resorce: O1234567}
  - just text
"""


def test_problem_has_file_line_column_message_and_hint(tmp_path):
    path = tmp_path / "night: ly.yaml"
    path.write_text(MANIFEST, "utf-8")
    with pytest.raises(ManifestError) as caught:
        load(path)
    found = {problem.line: problem for problem in problems_as_fields(caught.value.problems)}
    assert {problem.file for problem in found.values()} == {str(path)}
    assert found[3][2:] == (21, 'catalog "sandbox" is not known', "did you mean Sandbox?")
    assert found[5].column == 49
    assert found[5].message.startswith('resource "0123" does not match ')
    assert found[5].hint == "an opportunity id, e.g. O1234567"
    assert found[6][2:4] == (38, 'unknown key "resorce" in a pair')
    assert str(found[6].hint).startswith("did you mean resource")


@pytest.mark.parametrize(
    ("name", "line", "column", "hint"),
    [
        ("a.ndjson", '{"resource": "not", "not" "valid"}', 27, "one object a line, keys and texts"),
        ("a.yaml", "not: valid: not", 11, "check the indentation, brackets"),
        ("a.yaml", "a: @not", 4, "a tab? indent with spaces"),
    ],
)
def test_column_of_a_syntax_error_is_where_the_parser_stopped(tmp_path, name, line, column, hint):
    path = tmp_path / name
    path.write_text(f"{line}\n", "utf-8")
    with pytest.raises(ManifestError) as caught:
        load(path)
    found = problems_as_fields(caught.value.problems)[-1]
    assert (found.line, found.column) == (1, column)
    assert str(found.hint).startswith(hint)
    assert f" from column {column} on (" in found.message


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        (
            "version must be the number 1: write version: 1",
            "version must be the number 1",
            "write version: 1",
        ),
        (
            "accounts must be a mapping (key: value), not text",
            "accounts must be a mapping (key: value), not text",
            None,
        ),
        ("changed_since: 7 is not a time: write 36h", "changed_since: 7 is not a time", "write 36h"),
        ("tags must be a list, e.g. tags: [a]", "tags must be a list", "e.g. tags: [a]"),
        ('unknown key "a: b" here: remove it', 'unknown key "a: b" here', "remove it"),
        ('name "x does not match', 'name "x does not match', None),
    ],
)
def test_hint_is_what_follows_the_message(text, message, hint):
    (found,) = problems_as_fields([f"no-such-file.yaml:2: {text}"])
    assert found == ("no-such-file.yaml", 2, None, message, hint)
    assert problems_as_fields([f"m.yaml: {text}"])[0].line is None
