"""Paces against servers, in simulated time: `python -m tests.bench.pacing [SCENARIO …]`."""
