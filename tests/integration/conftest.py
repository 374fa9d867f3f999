import asyncio
from functools import partial

import pytest

from batch_snapshot import cli
from tests.support.processes import Finished


@pytest.fixture
def call(capsys):
    """Run a command line in this process."""

    def run(*words: object) -> Finished:
        code = cli.main([*map(str, words)])
        said = Finished(code, *capsys.readouterr())
        assert "Traceback" not in said.stderr
        assert "should not happen" not in said.stderr
        assert max(map(len, said.stderr.splitlines()), default=0) < 4_500
        return said

    return run


@pytest.fixture
def called(call):
    """Run a command line in a thread of this process, beside what this loop serves."""
    return partial(asyncio.to_thread, call)
