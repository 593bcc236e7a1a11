"""The same topic through k2beam and what one would take instead: :mod:`bench.peers.driver` runs them in turns."""
