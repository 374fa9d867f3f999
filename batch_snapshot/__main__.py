"""`python -m batch_snapshot`."""

import sys

from batch_snapshot.cli import main

sys.exit(main())
