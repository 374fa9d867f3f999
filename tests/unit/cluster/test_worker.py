"""What a worker's process keeps between batches, and its refusal of calls after the deadline."""

import pickle

import pytest

from batch_snapshot.aws.target import Target
from batch_snapshot.cluster import worker
from batch_snapshot.cluster.worker import Host, Run
from batch_snapshot.config.options import Settings
from batch_snapshot.models import Account, Verdict

pytestmark = pytest.mark.anyio


def test_batches_of_a_run_share_its_host_and_other_runs_have_their_own():
    run = Run("one", Target(), Settings(), 5.0)
    assert worker.host(run) is worker.host(pickle.loads(pickle.dumps(run)))
    assert worker.host(run) is not worker.host(run._replace(id="another"))


async def test_no_call_begins_after_the_deadline_of_its_own_batch():
    class Probed(Host):
        async def call(self):
            self._check_deadline()
            return "called"

    host = Probed(Run("one", Target(), Settings(), 5.0))
    host.clock = lambda: 10.0
    assert await host.answer(Account("a"), 10.1, "call") == ("called", None)
    late, _ = await host.answer(Account("a"), 10.0, "call")
    assert (late.code, late.verdict, late.may_have_landed) == ("TooLate", Verdict.RETRY, False)
