"""Create AWS Partner Central resource snapshots in bulk: exactly one a row, whatever breaks."""

__version__ = "0.1.0"
