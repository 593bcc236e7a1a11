"""The plan of a writer's schema: a field after the other, each read from all lanes at a time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from k2beam.arrays import Ints, Mask
from k2beam.codec.avro_schema import NULL, Array, AvroType, Map, Primitive, Union, without_null
from k2beam.codec.columnar.blocks import RecordPath, path_of
from k2beam.codec.columnar.lanes import Lanes
from k2beam.codec.columnar.leaves import Leaf, Raw, bitmap, leaf_of
from k2beam.codec.writer_schema import WriterSchema

MAX_ITEMS = 32
"""Items of an array or map that are read here; each is a step, whether of one lane or of all."""

_STRING = Primitive("string")

_Rows = npt.NDArray[np.intp]
_NO_ROWS = np.zeros(0, dtype=np.intp)


@dataclass(frozen=True, slots=True)
class ValueField:
    """A field of one value; ``null`` is the index of the null branch where it is a union of null and the leaf."""

    leaf: Leaf
    null: int | None

    def decode(self, lanes: Lanes) -> pa.Array:
        """The column, a value for each lane (anything for the bad ones)."""
        there, rows = _present(lanes, self.null)
        raw = self.leaf.read(there)
        validity = None
        if rows is not None:
            lanes.join(rows, there)
            if not len(rows):
                return pa.nulls(len(lanes), self.leaf.data_type)
            raw = _spread(raw, rows, len(lanes))
            validity = bitmap(_marked(rows, len(lanes)))
        array, bad = self.leaf.build(lanes.buffer, raw, validity)
        if bad is not None:
            lanes.drop(bad)
        return array


@dataclass(frozen=True, slots=True)
class GroupField:
    """A field of an array (one leaf) or a map (the leaves of key and value); ``null`` as in :class:`ValueField`."""

    leaves: tuple[Leaf, ...]
    null: int | None

    def decode(self, lanes: Lanes) -> pa.Array:
        """The column, a value for each lane (anything for the bad ones)."""
        there, rows = _present(lanes, self.null)
        counts, items = self._read(there)
        nulls = None
        if rows is not None:
            lanes.join(rows, there)
            (counts,) = _spread((counts,), rows, len(lanes))
            nulls = pa.array(~_marked(rows, len(lanes)))
        offsets = pa.array(np.concatenate(([0], np.cumsum(counts))).astype(np.int32))
        arrays = [self._build(lanes, leaf, raw, counts) for leaf, raw in zip(self.leaves, items, strict=True)]
        if len(arrays) == 1:
            list_type = pa.list_(pa.field("element", arrays[0].type, nullable=False))
            return pa.ListArray.from_arrays(offsets, arrays[0], type=list_type, mask=nulls)
        _drop_repeated_keys(lanes, arrays[0], counts)
        map_type = pa.map_(arrays[0].type, pa.field("value", arrays[1].type, nullable=False))
        return pa.MapArray.from_arrays(offsets, *arrays, type=map_type, mask=nulls)

    def _read(self, lanes: Lanes) -> tuple[Ints, list[Raw]]:
        """Number of items of each lane, and the items, those of a lane together. One block and its end are read."""
        counts, sized, block_ends = _counts(lanes)
        items = [leaf.read(lanes.subset(_NO_ROWS)) for leaf in self.leaves]
        total, most = int(counts.sum()), int(counts.max(initial=0))
        if not total:
            return counts, items
        items = [tuple(np.zeros(total, dtype=part.dtype) for part in raw) for raw in items]
        first = np.cumsum(counts) - counts
        for number in range(most):
            rows = np.flatnonzero(counts > number)
            there = lanes.subset(rows)
            at = first[rows] + number
            for leaf, raw in zip(self.leaves, items, strict=True):
                for whole, part in zip(raw, leaf.read(there), strict=True):
                    whole[at] = part
            lanes.join(rows, there)
        if len(sized):
            lanes.drop(_marked(sized[lanes.position[sized] != block_ends], len(lanes)))
        rows = np.flatnonzero(counts)
        there = lanes.subset(rows)
        there.indices(1)
        lanes.join(rows, there)
        return counts, items

    @staticmethod
    def _build(lanes: Lanes, leaf: Leaf, raw: Raw, counts: Ints) -> pa.Array:
        array, bad = leaf.build(lanes.buffer, raw, None)
        if bad is not None:
            lanes.drop(_marked(np.repeat(np.arange(len(lanes)), counts)[bad], len(lanes)))
        return array


PlannedField = ValueField | GroupField


class ColumnarPlan(NamedTuple):
    """The fields of the writer by name, in the order of the bytes, and how to pass over them."""

    fields: tuple[tuple[str, PlannedField], ...]
    path: RecordPath


def plan_of(schema: WriterSchema) -> ColumnarPlan | None:
    """The plan of ``schema``; None where it has a type that is not read in lanes (items that are nested or null)."""
    if not schema.columnar:
        return None
    fields = []
    for field in schema.tree.fields:
        planned = _field_of(field.type)
        if planned is None:
            return None
        fields.append((field.name, planned))
    return ColumnarPlan(tuple(fields), path_of(schema.tree))


def _field_of(avro_type: AvroType) -> PlannedField | None:
    inner, nullable = without_null(avro_type)
    null = avro_type.branches.index(NULL) if nullable and isinstance(avro_type, Union) else None
    match inner:
        case Array(items=items):
            leaves = [leaf_of(items)]
        case Map(values=values):
            leaves = [leaf_of(_STRING), leaf_of(values)]
        case _:
            leaf = leaf_of(inner)
            return None if leaf is None else ValueField(leaf, null)
    known = tuple(leaf for leaf in leaves if leaf is not None)
    return GroupField(known, null) if len(known) == len(leaves) else None


def _counts(lanes: Lanes) -> tuple[Ints, _Rows, Ints]:
    """Items of the first block of each lane, the lanes whose block gives its size (a negative count), and its ends."""
    counts = lanes.small()
    sized = np.flatnonzero(counts < 0)
    block_ends = np.zeros(0, dtype=np.int64)
    if len(sized):
        there = lanes.subset(sized)
        size = there.sizes()
        block_ends = there.position + size
        lanes.join(sized, there)
        counts[sized] *= -1
    return lanes.within(counts, MAX_ITEMS), sized, block_ends


def _present(lanes: Lanes, null: int | None) -> tuple[Lanes, _Rows | None]:
    """The lanes that have a value, and which they are (None: all)."""
    if null is None:
        return lanes, None
    rows = np.flatnonzero(lanes.indices(2) != null)
    return (lanes, None) if len(rows) == len(lanes) else (lanes.subset(rows), rows)


def _spread(raw: Raw, rows: _Rows, count: int) -> Raw:
    """What was read of some rows, in its place among all; zeros elsewhere."""
    wide = tuple(np.zeros(count, dtype=part.dtype) for part in raw)
    for whole, part in zip(wide, raw, strict=True):
        whole[rows] = part
    return wide


def _marked(rows: npt.NDArray[np.intp], count: int) -> Mask:
    mask = np.zeros(count, dtype=np.bool_)
    mask[rows] = True
    return mask


def _drop_repeated_keys(lanes: Lanes, keys: pa.StringArray, counts: Ints) -> None:
    if counts.max(initial=0) < 2:
        return
    encoded = keys.dictionary_encode()
    codes = encoded.indices.to_numpy().astype(np.int64)
    owners = np.repeat(np.arange(len(lanes)), counts)
    pairs = np.sort(owners * len(encoded.dictionary) + codes)
    repeated = pairs[1:][pairs[1:] == pairs[:-1]]
    lanes.drop(_marked(repeated // max(len(encoded.dictionary), 1), len(lanes)))
