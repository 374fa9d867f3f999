"""Lives of the program: killed, without power, beside another run, with a service that breaks."""

import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from random import Random

import pytest

from tests.simulation import breaks
from tests.simulation.disk import SimulatedDisk
from tests.simulation.life import Violation, live
from tests.simulation.scenario import Invocation, Scenario, scenario_of
from tests.simulation.shrink import shrink

#: Seconds of the lives in a run of the suite, and their share for each of the cases that share the work.
SECONDS, CASES = 20, 4


@pytest.mark.parametrize("case", range(CASES))
def test_lives_end_with_one_snapshot_a_row(case):
    end, seed = time.monotonic() + SECONDS / CASES, case
    while time.monotonic() < end:
        live(scenario_of(seed))
        seed += CASES


@pytest.mark.parametrize("seed", [1005615, 2000106, 9004351, 20007323, 30004874])
def test_lives_that_ended_badly_once_end_well(seed):
    """What a failed fsync had dropped; zeros in a first line; an unsynced cut; zeros twice, and in a head."""
    live(scenario_of(seed))


STORY = """
import json
from tests.simulation.life import live
from tests.simulation.scenario import scenario_of
print(json.dumps(live(scenario_of({seed})).story))
"""


def test_a_seed_is_the_same_life_in_every_process():
    other = subprocess.run(
        [sys.executable, "-c", STORY.format(seed=77)],
        env={"PYTHONHASHSEED": "1", "PYTHONPATH": str(breaks.ROOT)},
        capture_output=True,
        check=True,
    )
    assert json.loads(other.stdout) == list(live(scenario_of(77)).story)


def test_every_deliberate_break_still_fits_the_code():
    for one in [each for two in breaks.BREAKS for each in (two, two.also) if each]:
        source = (breaks.ROOT / "batch_snapshot" / one.file).read_text()
        assert source.count(one.old) == 1, one.name


def test_a_failing_life_is_shrunk_to_what_fails():
    """A service that forgets tokens too early and shows nothing yet is the stated limit of exactly once."""
    crash = Invocation(crash="kill", at=30, pause=700.0)
    outside = replace(
        scenario_of(1), faults=(("lost after", 1.0),), token_memory=1.0, read_lag=5000.0, invocations=(crash,)
    )
    smaller, story = shrink(outside, most=10)
    assert "has two snapshots" in story
    assert smaller.last - smaller.first == 1
    with pytest.raises(Violation):
        live(smaller)


# ---- the disk


def after_power_cut(folder, seed, synced, unsynced):
    """What a file holds whose folder was synced, after these writes and a power cut."""
    folder.mkdir()
    disk = SimulatedDisk(Random(seed), lambda _: None, folder)
    with (folder / "file").open("ab", 0) as file:
        disk.sync(os.open(folder, os.O_RDONLY))
        for data in (*synced, None, *unsynced):
            if data is None:
                disk.sync(file.fileno())
            while data:
                data = data[disk.write(file.fileno(), data) :]  # noqa: PLW2901 - what is left
    disk.cut_power()
    return (folder / "file").read_bytes()


def test_a_power_cut_keeps_what_was_synced_and_any_part_of_the_rest(tmp_path):
    left = {after_power_cut(tmp_path / f"{n}", n, [b"one\n"], [b"two\n", b"three\n"]) for n in range(200)}
    assert all(content.startswith(b"one\n") for content in left)
    assert {b"one\n", b"one\ntwo\nthree\n", b"one\ntwo\n", b"one\n\0\0\0\0three\n"} <= left
    assert any(content.endswith(b"\0") for content in left)


def test_a_new_name_can_vanish_until_its_folder_is_synced(tmp_path):
    left = set()
    for seed in range(20):
        folder = tmp_path / f"{seed}"
        folder.mkdir()
        disk = SimulatedDisk(Random(seed), lambda _: None, folder)
        with (folder / "file").open("ab", 0) as file:
            disk.write(file.fileno(), b"one")
            disk.sync(file.fileno())
        disk.cut_power()
        left.add((folder / "file").exists())
    assert left == {True, False}


def test_a_scenario_of_faults_draws_them_as_often_as_it_says():
    rng, scenario = Random(1), Scenario(0, faults=(("lost after", 0.2), ("late", 0.1)))
    drawn = [scenario.draw_fate(rng) for _ in range(5000)]
    assert 900 < drawn.count("lost after") < 1100
    assert 400 < drawn.count("late") < 600


def test_the_documentation_lists_every_break():
    page = (breaks.ROOT / "docs" / "explanation" / "simulation.md").read_text("utf-8")
    assert [one.name for one in breaks.BREAKS] == [
        line.removeprefix("- ")
        for line in page.partition("--breaks`")[2].partition("##")[0].splitlines()
        if line.startswith("- ")
    ]
