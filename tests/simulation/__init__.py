"""Deterministic simulation: one seed is one whole life of the program, with crashes and power cuts.

A life is a manifest and several invocations of `run` and `retry`. Each of them may be killed or lose its
power at any write, fsync, call or answer. The real engine, plan, ledger, history and quota code runs in
virtual time, on a simulated disk (`disk`) and against a simulated service (`service`). `life` judges it by
the service's record.
"""
