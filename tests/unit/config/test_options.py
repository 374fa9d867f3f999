"""What a ledger's run line records of the options, and what is read back from it."""

import pytest

from batch_snapshot.config.options import (
    BUDGET,
    DEFAULT_SETTINGS,
    ClusterOptions,
    Options,
    Settings,
    recorded_settings,
    recorded_silence,
    silent_after,
)


def test_workers_of_a_crashed_run_are_silent_after_the_times_that_it_recorded():
    options = Options(engine=Settings(drain_timeout=7.0), cluster=ClusterOptions(budget=3.0))
    assert recorded_silence(recorded_settings(options)) == silent_after(3.0, 7.0)
    assert recorded_silence(recorded_settings(Options(engine=Settings(drain_timeout=7.0)))) == 0


@pytest.mark.parametrize("wrong", [None, "5", 0, -1, 1e9])
def test_times_that_make_no_sense_are_the_defaults(wrong):
    default = silent_after(BUDGET, DEFAULT_SETTINGS.drain_timeout)
    assert recorded_silence({"engine": "dask", "lease_s": wrong, "drain_s": wrong}) == default
