"""The command, with a job that looks for holes twice a second: nobody waits twenty minutes for a test."""

from __future__ import annotations

from k2beam.cli.main import main
from k2beam.job import holes

if __name__ == "__main__":
    holes.LOOK_SECONDS = 0.5
    main()
