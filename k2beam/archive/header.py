"""The header of a container: magic, metadata, sync marker, parsed within bounds.

Source: Avro 1.11 specification, "Object Container Files". The metadata map is parsed here and not
by a library because its lengths come from bytes that nobody has checked yet.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO

from k2beam import schemas
from k2beam.archive.codecs import CODECS
from k2beam.archive.files import expand_paths, open_archive
from k2beam.archive.varint import read_long
from k2beam.codec.avro_schema import record_type
from k2beam.codec.frame import parse_ref
from k2beam.codec.writer_schema import WriterSchema
from k2beam.errors import ArchiveRefused, SchemaError, UsageError
from k2beam.model import SchemaRef

if TYPE_CHECKING:
    from k2beam.archive.stores import Stores

CONTAINER_MAGIC = b"Obj\x01"
SYNC_BYTES = 16
SCHEMAS_KEY = "k2.schemas"
"""Metadata key of a raw_record container: a JSON object of writer schemas by Confluent id."""

_MAX_ENTRIES = 10_000
_FIRST_READ = 1 << 16


@dataclass(frozen=True, slots=True)
class ArchiveLimits:
    """Bounds for reading containers, in bytes. None of them changes how records are numbered.

    ``max_block_bytes``: a block, compressed or decompressed. ``max_envelope_bytes``: the same for a block of a
    raw_record container, whose messages are taken apart into Python objects. ``max_header_bytes``: the header.
    ``chunk_bytes`` and ``chunk_records``: about how much one worker takes at a time.

    Examples:
        >>> from k2beam.archive.header import ArchiveLimits
        >>> from k2beam.archive.plan import plan_archive
        >>> plan = plan_archive("samples/crypto/trades-00001.avro", limits=ArchiveLimits(chunk_records=1000))
        >>> [chunk.records for chunk in plan.chunks]
        [1236, 1236, 528]
    """

    max_block_bytes: int = 64 << 20
    max_envelope_bytes: int = 16 << 20
    max_header_bytes: int = 16 << 20
    chunk_bytes: int = 8 << 20
    chunk_records: int = 1_000_000

    def __post_init__(self) -> None:
        for name in ("max_block_bytes", "max_envelope_bytes", "max_header_bytes", "chunk_bytes", "chunk_records"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} must be at least 1, not {getattr(self, name)}")


@dataclass(frozen=True, slots=True)
class ArchiveHeader:
    """What the header of a container says; ``size`` is its length in bytes, sync marker included.

    ``raw``: the container is in the raw_record envelope, and ``schemas`` are the writer schemas
    (JSON text) by Confluent id that came with it.

    Examples:
        >>> from k2beam.archive.header import check_archives
        >>> [header] = check_archives(["samples/crypto/trades-00001.avro"])
        >>> header.codec, header.raw, [schema_id for schema_id, _ in header.schemas]
        ('deflate', True, [1])
    """

    path: str
    size: int
    sync: bytes
    codec: str
    schema_json: str
    raw: bool
    schemas: tuple[tuple[SchemaRef, str], ...] = ()


def check_archives(
    paths: Sequence[str],
    root: str | None = None,
    limits: ArchiveLimits | None = None,
    stores: Stores | None = None,
) -> list[ArchiveHeader]:
    """The headers of all files that ``paths`` mean, checked before any of them is read.

    Raises UsageError when nothing matches, ArchiveRefused naming the file when one is outside ``root``,
    no Avro container, or has a codec or a schema that is not taken.

    Examples:
        >>> from k2beam.archive.header import check_archives
        >>> [(header.path, header.raw) for header in check_archives(["samples/crypto"])]
        [('samples/crypto/quotes-00001.avro', True), ('samples/crypto/trades-00001.avro', True)]
    """
    headers = []
    for path in expand_paths(paths, stores):
        with open_archive(path, root, stores) as file:
            headers.append(read_header(file, path, limits or ArchiveLimits()))
    return headers


def read_header(file: BinaryIO, path: str, limits: ArchiveLimits) -> ArchiveHeader:
    """Parse and check the header of an open file. Raises ArchiveRefused, naming ``path``.

    A file without a byte has a header of none: its writer may not have begun yet.
    """
    if not file.read(1):
        return ArchiveHeader(path, size=0, sync=b"", codec="null", schema_json="", raw=False)
    metadata, sync, size = _read_metadata(file, path, limits.max_header_bytes)
    codec = metadata.get("avro.codec", b"null").decode("utf-8", "replace")
    if codec not in CODECS:
        raise ArchiveRefused(f"{path}: codec {codec[:40]!r} is not supported; write it with one of {', '.join(CODECS)}")
    if "avro.schema" not in metadata:
        raise ArchiveRefused(f"{path}: the header has no avro.schema")
    schema = _parse_json(metadata["avro.schema"], path, "avro.schema")
    text = metadata["avro.schema"].decode("utf-8")
    raw = _check_schema(schema, text, path)
    return ArchiveHeader(
        path=path,
        size=size,
        sync=sync,
        codec=codec,
        schema_json=text,
        raw=raw,
        schemas=_writer_schemas(metadata, path) if raw else (),
    )


def _read_metadata(file: BinaryIO, path: str, limit: int) -> tuple[dict[str, bytes], bytes, int]:
    """Metadata, sync marker and length; reads more of the file only as far as the header goes."""
    window = min(_FIRST_READ, limit)
    while True:
        file.seek(0)
        data = file.read(window)
        if not data.startswith(CONTAINER_MAGIC):
            raise ArchiveRefused(f"{path}: not an Avro container: it does not start with {CONTAINER_MAGIC!r}")
        try:
            return _parse_metadata(data)
        except IndexError:
            if len(data) < window:
                raise ArchiveRefused(f"{path}: the file ends within its header") from None
            if window == limit:
                raise ArchiveRefused(f"{path}: the header is larger than {limit} bytes") from None
            window = min(window * 8, limit)
        except ValueError as error:
            raise ArchiveRefused(f"{path}: the header is damaged: {error}") from error


def _parse_metadata(data: bytes) -> tuple[dict[str, bytes], bytes, int]:
    """Raises IndexError when ``data`` is too short, ValueError when it is damaged."""
    metadata: dict[str, bytes] = {}
    entries = 0
    count, position = read_long(data, len(CONTAINER_MAGIC))
    while count:
        if count < 0:  # a negative count is followed by the size of the map's block in bytes
            count, (_, position) = -count, read_long(data, position)
        entries += count
        if entries > _MAX_ENTRIES:
            raise ValueError(f"more than {_MAX_ENTRIES} metadata entries")
        for _ in range(count):
            key, position = _read_bytes(data, position)
            metadata[key.decode("utf-8")], position = _read_bytes(data, position)
        count, position = read_long(data, position)
    end = position + SYNC_BYTES
    if end > len(data):
        raise IndexError
    return metadata, data[position:end], end


def _read_bytes(data: bytes, position: int) -> tuple[bytes, int]:
    length, position = read_long(data, position)
    if length < 0:
        raise ValueError(f"negative length at byte {position}")
    if position + length > len(data):
        raise IndexError
    return data[position : position + length], position + length


def _parse_json(text: bytes, path: str, key: str) -> Any:
    try:
        return json.loads(text.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise ArchiveRefused(f"{path}: metadata {key} is not JSON: {str(error)[:200]}") from error


def _check_schema(schema: Any, text: str, path: str) -> bool:
    """Whether the schema is the raw_record envelope."""
    try:
        record_type(schema)
        known = schemas.identify(schema)
    except SchemaError as error:
        raise ArchiveRefused(f"{path}: {str(error)[:500]}") from error
    if known.kind is not None:
        _check_readable(text, path)
    elif not _is_envelope(schema):
        raise ArchiveRefused(f"{path}: its raw_record schema has other fields than schemas/raw_record.avsc")
    return known.kind is None


def _check_readable(text: str, path: str) -> None:
    """Refuse a container none of whose records could be read: as dead letters they would be taken for ever."""
    try:
        WriterSchema.parse(text)
    except SchemaError as error:
        raise ArchiveRefused(
            f"{path}: {str(error)[:500]}; nothing was read. Write the file anew with a schema that fits"
        ) from error


def _is_envelope(schema: Any) -> bool:
    return bool(_layout(schema) == _layout(schemas.avro_schema("raw_record")))


def _layout(schema: Any) -> Any:
    """What decides the encoding: types and the names and order of fields, without docs and defaults."""
    if isinstance(schema, list):
        return [_layout(branch) for branch in schema]
    if not isinstance(schema, dict):
        return schema
    if schema["type"] == "record":
        return [(field["name"], _layout(field["type"])) for field in schema["fields"]]
    if schema["type"] == "array":
        return {"array": _layout(schema["items"])}
    return _layout(schema["type"])


def _writer_schemas(metadata: dict[str, bytes], path: str) -> tuple[tuple[SchemaRef, str], ...]:
    """The writer schemas by id or GUID. Whether one is known and safe is asked when a payload needs it."""
    if SCHEMAS_KEY not in metadata:
        return ()
    by_id = _parse_json(metadata[SCHEMAS_KEY], path, SCHEMAS_KEY)
    refs = {key: parse_ref(key) for key in by_id} if isinstance(by_id, dict) else {"": None}
    if None in refs.values():
        raise ArchiveRefused(f"{path}: metadata {SCHEMAS_KEY} is not a JSON object of schemas by id or GUID")
    texts = {key: value if isinstance(value, str) else json.dumps(value) for key, value in by_id.items()}
    return tuple((ref, texts[key]) for key, ref in refs.items() if ref is not None)
