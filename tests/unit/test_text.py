"""Text for people: printable, bounded, with units."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batch_snapshot import text


def test_escapes_leave_nothing_that_drives_a_terminal():
    hostile = "a\x1b[31m\r\n\u2028\ud800ü"
    assert text.escaped(hostile) == r"a\x1b[31m\r\n\u2028\ud800ü"
    assert text.escaped(hostile, keep="\n") == "a\\x1b[31m\\r\n\\u2028\\ud800ü"
    assert text.escaped_non_ascii("аpp…") == r"\u0430pp…"
    assert text.without_control_characters(hostile, 100) == "a [31m   ?ü"
    assert text.encodable("a\ud800") == r"a\ud800"


@pytest.mark.parametrize(("path", "word"), [("a b", "'a b'"), ("-h.yaml", "./-h.yaml"), ("-a b", "'./-a b'")])
def test_a_path_in_a_command_is_one_word_and_no_flag(path, word):
    assert text.shell_argument(path) == word


def test_long_texts_keep_their_beginning_or_both_ends():
    assert text.truncated("abcdef", 6) == "abcdef"
    assert text.truncated("abcdef", 5) == "abcd…"
    assert text.shortened("abcdefgh", 6) == "abcd…gh"
    assert text.without_control_characters("abcdef", 5) == "abcde…"


@given(
    st.lists(st.sampled_from(["it's", "a", "well-known", "--a-flag=of-some-length"])),
    st.integers(8, 30),
    st.sampled_from(["", "error: "]),
)
def test_lines_are_broken_between_words_only(words, width, begin):
    line = " ".join(["x", *words, "with: batch-snapshot run 'a b' --yes"])
    *broken, last, short = text.wrapped(f"{line}\nshort", width, begin).split("\n")
    assert (last.strip(), short) == ("batch-snapshot run 'a b' --yes", f"{begin}short")
    assert " ".join([*broken, last]).split() == (begin + line).split()
    assert all(len(one) <= width or " " not in one.removeprefix(begin).strip() for one in broken)
    assert text.wrapped(line, 1000) == line


@pytest.mark.parametrize(
    "whole",
    [
        "'a quoted path'",
        "`batch-snapshot ls`",
        "a folder/with blanks.ndjson:",
        "ledger  a folder/with blanks.ndjson",
    ],
)
def test_what_may_be_copied_is_not_broken(whole):
    assert whole in text.wrapped(f"{whole} is gone and it is not known where it is", 12)
    assert text.wrapped("Usage: batch-snapshot run", 12) == "Usage:\n  batch-snapshot\n  run"


def test_a_command_that_is_too_long_for_its_indent_begins_its_line():
    command = "batch-snapshot retry ledgers/mix.ndjson --only ValidationException"
    assert text.wrapped(f"        $ {command}", 70) == f"        $\n{command}"
    assert text.wrapped(f"        $ {command}", 80) == f"        $ {command}"


@pytest.mark.parametrize(
    ("written", "seconds"),
    [("0", 0), ("90s", 90), ("15m", 900), ("1.5h", 5400), ("1d", 86_400), ("1h30m", 5400)],
)
def test_durations_are_a_number_and_its_unit(written, seconds):
    assert text.parse_duration(written) == seconds


@pytest.mark.parametrize("written", ["", "90", "h", "1w", "-1s", "1h 30m", "1,5h", "1hh"])
def test_what_is_no_duration_is_none(written):
    assert text.parse_duration(written) is None


def test_numbers_and_durations_in_words():
    assert [text.plural(number, "row") for number in (0, 1, 1200)] == ["0 rows", "1 row", "1,200 rows"]
    assert text.duration(90061) == "1 day, 1:01:01"
    assert text.duration(-1) == "0:00:00"
    assert text.duration(1e300) == "more than a million years"
