"""`batch-snapshot`, and `python -m batch_snapshot`: handles signals before anything else is imported."""

import sys

from batch_snapshot import interrupts


def main() -> int:
    """Run the command line as a process of its own; returns the exit code."""
    imported = interrupts.exit_on_signal(sys.argv[1:])
    from batch_snapshot.cli import main as run  # a signal may come while this is imported

    imported()
    code = run()
    interrupts.exit_at_once_with(code)
    return code


if __name__ == "__main__":
    sys.exit(main())
