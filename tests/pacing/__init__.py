"""Paces against servers, in simulated time: `python -m tests.pacing [SCENARIO …]`."""
