"""How fast the program itself is, where no service limits it, and what memory it takes.

::

    figures     what was measured, in tables
    children    processes that are waited for, with what they used
    stub        an endpoint that answers at once and counts
    material    manifests and ledgers of any size
    clients     who is measured against the endpoint
    passes      who is measured without one: a pass over a manifest or a ledger

    throughput, million, manifests, ledgers, resume, startup, cluster     the benches, a table each
"""
