"""Benchmarks: this program against what people use today, against endpoints on this machine.

::

    python -m tests.bench quota                                  # every scenario, three times: hours
    python -m tests.bench quota --quick --clients ours           # the short scenarios, once
    python -m tests.bench quota --only unknown-20 --json out.json

    python -m tests.bench speed                                  # three times: a quarter of an hour
    python -m tests.bench speed --quick --only throughput        # fewer rows
    python -m tests.bench speed --only million --repeat 1        # a million rows: half an hour

    python -m tests.bench cluster                                # three times: a quarter of an hour
    python -m tests.bench cluster --quick --repeat 1             # fewer rows
"""
