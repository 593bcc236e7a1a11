"""The versions of servers and of their Java that fit together: here, and in the poms of ops/maven that name them anew.

Beam's runner for Flink, its job server and Flink itself must fit: of those on Maven Central, Beam 2.70 is the last that
has all its parts for Flink 1.19. Who has others gives poms of his own to scripts/lock_jars.py.
"""

from __future__ import annotations

from typing import Final

FLINK: Final = "1.19.3"
FLINK_JAVA: Final = (17, 17)
"""The oldest and the newest Java that Flink, and Beam's job server for it, run on here."""
BEAM_ON_FLINK: Final = "2.70.0"
KAFKA: Final = "4.1.0"
REGISTRY: Final = "3.3.3"
REST_CATALOG: Final = "0.99.0"
OBJECT_STORE: Final = "1.8.0"
