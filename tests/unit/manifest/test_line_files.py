"""NDJSON: the shortcut for flat objects reads what the full parser reads."""

import io
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batch_snapshot.manifest import line_files
from batch_snapshot.manifest.yaml_events import Fields
from tests.support.strategies import patient

words = st.sampled_from(["a", "b", 'q"', "\\", "é", "\n", ""])
values = words | st.none() | st.integers(0, 9) | st.lists(words, max_size=2)


def entries(line: str) -> tuple[list[object], list[str]]:
    problems: list[str] = []
    lines: Any = io.BufferedReader(io.BytesIO(line.encode()))
    nodes = line_files.ndjson_entries(lines, lambda _, text: problems.append(text), lambda *_: None, None)
    return [*nodes], problems


@given(st.lists(st.tuples(words, values), max_size=4))
@patient
def test_a_flat_object_is_read_as_the_full_parser_reads_it(pairs):
    line = "{" + ", ".join(f"{json.dumps(key)}: {json.dumps(value)}" for key, value in pairs) + "}"
    problems: list[str] = []
    node = line_files._json_entry(line, 1, lambda _, text: problems.append(text))
    assert entries(line) == ([node], problems)


@pytest.mark.parametrize("first", ['"x"', "1", "null", '["x"]'])
def test_a_key_that_stands_twice_is_reported_whatever_its_first_value(first):
    [node], problems = entries(f'{{"a": {first}, "a": "y", "b": "z"}}')
    assert isinstance(node, Fields)
    assert 'key "a" stands here a second time: remove one' in problems
