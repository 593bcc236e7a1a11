"""Recorded events once more, at their speed or another one: to Kafka, to standard output, or into an archive.

Delivery: at least once for each event where a replay is stopped and resumed, and once where it runs through; a position
is written down only once all before it was handed over. An archive is whole or not there.
"""

from __future__ import annotations

import itertools
import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol, TextIO

import pyarrow as pa

from k2beam.archive.write import write_raw_archive
from k2beam.cache import whole
from k2beam.csv.encode import archive_schemas, encode_messages
from k2beam.errors import UsageError
from k2beam.jsonable import to_json
from k2beam.model import SEQUENCED_KINDS, Kind, RawRecord
from k2beam.produce.delivery import Delivery
from k2beam.produce.pace import MAX_SPEED, Pacer
from k2beam.produce.recorded import Recorded, RecordedArchive, Recording, ReplayPosition
from k2beam.produce.spool import OutgoingMessage
from k2beam.schemas import event_arrow_schema, latest_name, payload_arrow_schema
from k2beam.topics import topic_of_source

KEPT_EVERY_S = 1.0
"""So often the position is written down."""

_ENCODED_AT_ONCE = 1_000


class Destination(Protocol):
    """Where events go."""

    def put(self, event: Recorded) -> None:
        """Hand one over; blocks while what is behind is full."""

    def flush(self) -> None:
        """Wait until all that was handed over is kept there."""


@dataclass(frozen=True, slots=True)
class ReplayStats:
    """How many ``events`` were handed over, whether the replay was ``stopped`` before its end, and how late they were.

    ``late_ms``: the median, of 99 in 100 and the most, in milliseconds; empty at full speed.
    """

    events: int
    stopped: bool
    duration_s: float
    late_ms: Mapping[str, float]

    def as_dict(self) -> dict[str, Any]:
        """The stats, as the command line prints them."""
        return asdict(self)


@dataclass(slots=True)
class JsonLines:
    """Events as lines of JSON: ``kind``, and the columns of the table. What is no event is left out."""

    out: TextIO = sys.stdout

    def put(self, event: Recorded) -> None:
        """Write one line. Raises BrokenPipeError where nobody reads."""
        if event.record is not None:
            self.out.write(f"{to_json({'kind': event.position.kind, **event.record})}\n")

    def flush(self) -> None:
        """Hand all lines to the system."""
        self.out.flush()


class EventProducer(Protocol):
    """What sends events: a :class:`k2beam.produce.producer.MarketDataProducer`."""

    def produce_trade(self, record: dict[str, Any]) -> Any: ...
    def produce_quote(self, record: dict[str, Any]) -> Any: ...
    def flush(self) -> Any: ...


@dataclass(slots=True)
class KafkaEvents:
    """Events of tables to the topics that their exchange and asset class name."""

    producer: EventProducer

    def put(self, event: Recorded) -> None:
        """Send one; raises as the producer does."""
        assert event.record is not None, "an event of a table has a record"
        kind = _kind(event)
        send = self.producer.produce_quote if kind == "quotes" else self.producer.produce_trade
        send({name: event.record[name] for name in payload_arrow_schema(latest_name(kind)).names})

    def flush(self) -> None:
        """Wait for the broker. Raises NotDelivered."""
        self.producer.flush()


@dataclass(slots=True)
class KafkaMessages:
    """Messages of an archive, byte for byte, to their topics or to ``topic``."""

    delivery: Delivery
    topic: str | None = None

    def put(self, event: Recorded) -> None:
        """Send one. Raises KafkaFailed, and UsageError for a source that names no topic."""
        message = event.message
        assert message is not None, "an event of an archive is a message"
        if self.topic is None and message.source.count("/") < 2:
            raise UsageError(f"source {message.source!r} of the archive names no topic: say --topic NAME")
        topic = self.topic or topic_of_source(message.source)
        self.delivery.send(OutgoingMessage(topic, message.key, message.value, headers=message.headers))

    def flush(self) -> None:
        """Wait for the broker. Raises NotDelivered."""
        self.delivery.flush()


def replay(
    recording: Recording,
    destination: Destination,
    *,
    speed: float = MAX_SPEED,
    checkpoint: Path | None = None,
    stopped: Callable[[], bool] = lambda: False,
    pacer: Pacer | None = None,
    advance: Callable[[float], None] = lambda _events: None,
) -> ReplayStats:
    """Hand the events of ``recording`` over, in their order, with the spacing that they had divided by ``speed``.

    ``checkpoint``: a file that holds the position, from which the next replay of the same goes on; it is removed at the
    end. ``stopped`` ends it early. Raises UsageError for a checkpoint of something else, and what reading and handing
    over raise.
    """
    pacer = pacer or Pacer(speed, stopped=stopped)
    identity = {} if checkpoint is None else recording.identity
    position = None if checkpoint is None else read_checkpoint(checkpoint, identity)
    begun = kept = time.monotonic()
    events, ended = 0, True
    for event in recording.read(position):
        pacer.wait(event.position.time)
        if stopped():
            ended = False
            break
        destination.put(event)
        position, events = event.position, events + 1
        advance(1)
        if checkpoint is not None and time.monotonic() - kept >= KEPT_EVERY_S:
            destination.flush()
            write_checkpoint(checkpoint, identity, position)
            kept = time.monotonic()
    destination.flush()
    if checkpoint is not None:
        if ended:
            checkpoint.unlink(missing_ok=True)
        elif position is not None:
            write_checkpoint(checkpoint, identity, position)
    return ReplayStats(events, not ended, round(time.monotonic() - begun, 3), pacer.late_ms())


def read_checkpoint(path: Path, identity: Mapping[str, Any]) -> ReplayPosition | None:
    """Where the replay of this recording stopped; None where there is no file. Raises UsageError for another's."""
    try:
        kept = json.loads(path.read_text("utf-8"))
        position = ReplayPosition(*kept["position"])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise UsageError(f"--checkpoint {path} can't be read: {error}; remove it to begin anew") from error
    if kept["recording"] != json.loads(json.dumps(identity)):
        raise UsageError(f"--checkpoint {path} is of another replay: give the same options, or another file")
    return position


def write_checkpoint(path: Path, identity: Mapping[str, Any], position: ReplayPosition) -> None:
    """Write down where a replay is; the file is whole at any time."""
    with whole(path) as partial:
        partial.write_text(json.dumps({"recording": identity, "position": position}), "utf-8")


def replay_to_archive(recording: Recording, path: str, advance: Callable[[float], None] = lambda _events: None) -> int:
    """Write the events into a new raw_record container, in their order; how many there were.

    Messages of an archive stay as they are. Events of tables are messages of version 2, with the source, partition and
    offset that they have in the tables, so that to ingest the container adds nothing to them. Raises as
    :func:`k2beam.archive.write.write_raw_archive`.
    """
    schemas = archive_schemas()
    if isinstance(recording, RecordedArchive):
        schemas = {ref: json.loads(text) for ref, text in recording.schemas.items()}
    events = recording.read(None)

    def messages() -> Iterator[RawRecord]:
        while some := list(itertools.islice(events, _ENCODED_AT_ONCE)):
            advance(len(some))
            yield from _messages_of(some)

    return write_raw_archive(path, messages(), schemas)


def _messages_of(events: Sequence[Recorded]) -> Iterator[RawRecord]:
    """The messages of events, in the order of these."""
    encoded = {kind: _encoded(kind, [one for one in events if one.position.kind == kind]) for kind in SEQUENCED_KINDS}
    return (event.message or next(encoded[_kind(event)]) for event in events)


def _encoded(kind: Kind, events: Sequence[Recorded]) -> Iterator[RawRecord]:
    rows = [dict(one.record) for one in events if one.record is not None and one.message is None]
    if rows:
        yield from encode_messages(kind, pa.RecordBatch.from_pylist(rows, event_arrow_schema(kind)))


def _kind(event: Recorded) -> Kind:
    return "quotes" if event.position.kind == "quotes" else "trades"
