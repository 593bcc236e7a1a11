"""The exceptions that k2beam raises.

::

    K2BeamError
    ├── UsageError              an option, a path or a configuration is wrong; exit code 2
    ├── SchemaError             a schema is unknown, refused or can't be mapped
    ├── FrameError              a payload isn't in Confluent framing
    │   ├── TombstoneError      (k2beam.codec.frame) it's null
    │   ├── EmptyPayloadError   (k2beam.codec.frame) it has no bytes
    │   ├── BadMagicError       (k2beam.codec.frame) it doesn't begin with the magic byte
    │   └── ShortFrameError     (k2beam.codec.frame) it ends within the schema id
    ├── DecodeError             a payload doesn't decode under its schema
    │   ├── StrictError         (k2beam.codec.strict) by the second decoder, with its error class
    │   └── BadFrame            (k2beam.ingest.binance) a frame of the exchange gives no event
    ├── ArchiveError            a container can't be read
    │   ├── ArchiveRefused      it's outside the root, too large or hostile: nothing is read
    │   └── BrokenBlock         one block is broken; the blocks around it are read
    │       └── BlockTooLarge   (k2beam.archive.codecs) it would unpack to more than the limit
    ├── MetricError             a metric was called with a wrong name or wrong labels
    ├── MetricsPushFailed       (k2beam.metrics.push) the Pushgateway did not take the metrics
    ├── PlatformError           (k2beam.platform.prism) a program or server that is needed can't be had
    │   └── FlinkRestError      (k2beam.platform.flink_jobs) Flink's REST API refused or did not answer
    ├── RunnerGone              (k2beam.beam_job) the runner of a job does not answer any more
    ├── CsvError                (k2beam.ingest.csv.files) a CSV file changed while it was read
    ├── InvalidRecord           (k2beam.ingest.records) the producer refuses a record; names the field
    ├── NotDelivered            (k2beam.ingest.delivery) messages that the broker did not take
    ├── SpoolError              (k2beam.ingest.spool) a spool file can't be read
    ├── KafkaFailed             (k2beam.ingest.topics) the broker can't be reached, or refused
    ├── KafkaUnreachable        (k2beam.kafka.cluster) the cluster did not answer; asked again later, it may
    ├── LoginRefused            (k2beam.kafka.login) the broker rejected this client
    ├── FeedError               (k2beam.ingest.feed_client) an exchange refuses, or the attempts are used up
    ├── RegistryError           (k2beam.registry.client) the Schema Registry refused, or its answer is wrong
    │   ├── RegistryUnavailable (k2beam.registry.client) it did not answer while it was waited for
    │   └── NotRegistered       (k2beam.registry.client) it has no such schema or subject
    └── LakeError               a table can't be read or written
        ├── UnreadableFile      (k2beam.lake.scan) a data file is lost or damaged
        ├── CommitConflict      another writer won, and the retries are used up
        └── CommitUnknown       the outcome of a commit could not be found out

A record that can't be used is never an exception at the level of the pipeline:
it becomes a :class:`k2beam.model.DeadLetter` whose ``error_class`` is one of the names
that the stage documents.
"""

from __future__ import annotations


class K2BeamError(Exception):
    """Base of everything that k2beam raises on purpose."""


class UsageError(K2BeamError):
    """The caller's options, paths or configuration are wrong. The command line exits with 2."""


class SchemaError(K2BeamError):
    """A schema is unknown, refused as unsafe, or has no mapping to the tables."""


class FrameError(K2BeamError):
    """A payload is not in Confluent framing (magic byte 0, four bytes of schema id)."""


class DecodeError(K2BeamError):
    """A payload does not decode under its schema."""


class ArchiveError(K2BeamError):
    """An Avro container can't be read."""


class ArchiveRefused(ArchiveError):
    """An archive was refused before anything of it was read."""


class BrokenBlock(ArchiveError):
    """One block of a container is broken; the blocks around it are still read."""


class MetricError(K2BeamError):
    """A metric was called with a name or labels that the registry does not know."""


class LakeError(K2BeamError):
    """A table can't be opened, read or written."""


class CommitConflict(LakeError):
    """Other writers kept winning until the retries were used up; nothing of this commit landed."""


class CommitUnknown(LakeError):
    """The outcome of a commit could not be found out; no file was deleted."""
