"""The command, with a job that looks for holes twice a second and reads in short bundles.

Nobody waits twenty minutes for a test, or makes a backlog that takes minutes to read.
"""

from __future__ import annotations

from k2beam.cli.main import main
from k2beam.job import holes
from transforms import librdkafka_reader

if __name__ == "__main__":
    holes.LOOK_SECONDS = 0.5
    librdkafka_reader.BUNDLE_SECONDS = 0.05
    main()
