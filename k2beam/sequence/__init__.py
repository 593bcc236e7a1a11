"""The gap machine: which numbers of a feed are missing, and where its count began anew.

:func:`recount` is the definition; :class:`DayFold` finds the same from days. Batches send their numbers as a
:class:`Slice` for each key, :class:`KeyState` folds them as they come, :class:`SequenceTracker` answers for one message
at once. Pure: no Beam, no I/O, no clock.
"""

from k2beam.sequence.changes import GapBatch, GapChange, diff_ledger, gap_id, missing_gaps
from k2beam.sequence.days import DayFold
from k2beam.sequence.recount import Epoch, MissingInterval, recount
from k2beam.sequence.rules import KeyName, SequenceRules
from k2beam.sequence.runs import Run, SequenceKey, Slice, format_key, parse_key, slice_runs, unpack_slices
from k2beam.sequence.state import Counts, FoldResult, KeyState, SequenceClass
from k2beam.sequence.tracker import SequenceResult, SequenceTracker

__all__ = [
    "Counts",
    "DayFold",
    "Epoch",
    "FoldResult",
    "GapBatch",
    "GapChange",
    "KeyName",
    "KeyState",
    "MissingInterval",
    "Run",
    "SequenceClass",
    "SequenceKey",
    "SequenceResult",
    "SequenceRules",
    "SequenceTracker",
    "Slice",
    "diff_ledger",
    "format_key",
    "gap_id",
    "missing_gaps",
    "parse_key",
    "recount",
    "slice_runs",
    "unpack_slices",
]
