"""Runs of many accounts."""

import pytest

from batch_snapshot.simulator import serve
from tests.support.processes import Place, first, pairs


@pytest.mark.asyncio
@pytest.mark.parametrize(("hard", "code"), [(4_096, 0), (100, 5)])
async def test_a_lock_for_each_account_needs_no_limit_raised_by_hand(tmp_path, hard, code):
    place = Place(tmp_path)
    names = [f"a{n}" for n in range(120)]
    place.manifest(
        [pairs(1, first=n, account=name)[0] for n, name in enumerate(names)],
        accounts={name: {} for name in names},
    )
    async with serve() as (url, _):
        result = await place.call(
            *("run", "trial.yaml", "--endpoint-url", url),
            script=first(f"import resource\nresource.setrlimit(resource.RLIMIT_NOFILE, (100, {hard}))"),
        )
    assert result.code == code, result.stderr
    assert ("ulimit -n" in result.stderr) is (code == 5)
