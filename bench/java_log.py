"""When the Java consumer of a job first asked for messages, by the log of the expansion service.

Its lines begin with the milliseconds since the program started. Each Kafka client also logs the clock at which it was
made, so the two can be brought together without the program's start being known.
"""

from __future__ import annotations

import re

_CLOCK = re.compile(r"^(\d+) .*Kafka startTimeMs: (\d+)", re.MULTILINE)
_SEEK = r"^(\d+) .*groupId=([\w-]+)\] Seeking to offset \d+ for partition {topic}-\d+"


def first_fetch(before: str, after: str, topic: str) -> float:
    """Seconds since the epoch at which the first reader of ``topic`` was set to its offset, right before its fetch.

    ``before`` and ``after`` are the log up to the job's start and since; consumer groups of the former are those of
    earlier jobs, which may be at work still. Raises ValueError where no reader of the job is in the log.
    """
    # A client's clock is read before its line is written, so the latest start is the nearest to the truth.
    starts = [int(clock) - int(since) for since, clock in _CLOCK.findall(before + after)]
    seeks = re.compile(_SEEK.format(topic=re.escape(topic)), re.MULTILINE).findall(after)
    reads = [int(since) for since, group in seeks if f"groupId={group}]" not in before]
    if not starts or not reads:
        raise ValueError(
            f"no consumer of {topic} in the log of the expansion service ({len(starts)} clients, {len(seeks)} seeks): "
            "has its log another form?"
        )
    return (max(starts) + min(reads)) / 1000
