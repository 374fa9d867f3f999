"""The tests: `unit/` mirrors the package, `integration/`, `e2e/` and `docs/` use it as a whole.

`support/` holds what they share, `bench/` the benchmarks.
"""

from pathlib import Path

#: Of the repository.
ROOT = Path(__file__).parent.parent
