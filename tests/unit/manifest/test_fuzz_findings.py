"""What fuzzing has found, and seeds that reach all that it fuzzes: the readers take every file."""

from random import Random

import pytest

from batch_snapshot import manifest
from batch_snapshot.reporting import status
from tests import ROOT
from tests.support.fuzz.targets import CUT, TARGETS

FINDINGS = ROOT / "tests/support/fuzz/findings"
FILES = sorted(path.relative_to(FINDINGS).as_posix() for path in FINDINGS.glob("*/*"))


@pytest.mark.parametrize("file", FILES)
def test_fuzz_findings_and_seeds_are_read(tmp_path, file):
    TARGETS[file.partition("/")[0]]((FINDINGS / file).read_bytes(), tmp_path)


def seeds(target: str) -> list[bytes]:
    return [path.read_bytes() for path in sorted((FINDINGS / target).iterdir())]


def test_randomly_combined_manifests_are_read_or_refused(tmp_path):
    """The half of one and the half of another, and an include of a third."""
    rng = Random(5)
    pool = seeds("manifest")
    for _ in range(150):
        one, other, third = (rng.choice(pool) for _ in range(3))
        cut = rng.randrange(len(one) + 1)
        data = one[:cut] + other[rng.randrange(len(other) + 1) :] + CUT + third
        TARGETS["manifest"](data, tmp_path)


def test_seeds_are_not_all_refused(tmp_path):
    """They would reach little."""
    TARGETS["manifest"]((FINDINGS / "manifest" / "every-key-and-every-include").read_bytes(), tmp_path)
    loaded = manifest.load(tmp_path / "manifest.yaml")
    assert (loaded.rows, len(loaded.files), len(loaded.accounts)) == (11, 5, 2)
    assert status.check_ledger(FINDINGS / "ledger" / "a-run-and-a-retry") == 3
