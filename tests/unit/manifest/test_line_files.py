"""NDJSON: what one object a line may be."""

import io
from typing import Any

import pytest

from batch_snapshot.manifest import line_files
from batch_snapshot.manifest.problems import Report
from batch_snapshot.manifest.yaml_events import Fields


def entries(line: str) -> tuple[list[object], list[str]]:
    report = Report()
    lines: Any = io.BufferedReader(io.BytesIO(line.encode()))
    nodes = line_files.ndjson_entries(lines, report, None)
    return [*nodes], report.problems.lines()


@pytest.mark.parametrize("first", ['"x"', "1", "null", '["x"]'])
def test_a_key_that_stands_twice_is_reported_whatever_its_first_value(first):
    [node], problems = entries(f'{{"a": {first}, "a": "y", "b": "z"}}')
    assert isinstance(node, Fields)
    assert any('key "a" appears here a second time: remove one' in one for one in problems)
