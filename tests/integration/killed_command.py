"""The command, which kills itself with SIGKILL at a commit: run by test_catalogs.py as a process of its own.

Arguments: ``before`` or ``after`` (the commit), how many commits are let pass first, and those of the command.
"""

from __future__ import annotations

import sys

from k2beam.cli.main import main
from k2beam.lake import transaction
from tests.integration.crashing import killing

if __name__ == "__main__":
    _, when, passes, *words = sys.argv
    transaction.append = killing(transaction.append, int(passes), after=when == "after")
    sys.argv = ["k2beam", *words]
    main()
