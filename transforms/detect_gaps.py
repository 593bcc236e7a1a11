"""DetectGaps: slices to changed rows of the ledger of gaps, key by key."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Protocol

import apache_beam as beam
from apache_beam.coders import BytesCoder, VarIntCoder
from apache_beam.transforms.timeutil import TimeDomain
from apache_beam.transforms.userstate import (
    AccumulatingRuntimeState,
    BagStateSpec,
    ReadModifyWriteRuntimeState,
    ReadModifyWriteStateSpec,
    RuntimeTimer,
    TimerSpec,
    on_timer,
)
from apache_beam.transforms.window import GlobalWindow
from apache_beam.utils.timestamp import Timestamp

from k2beam.errors import UsageError
from k2beam.metrics.config import DEFAULT_METRICS, MetricsConfig
from k2beam.model import Kind
from k2beam.sequence import Counts, FoldResult, GapBatch, KeyName, KeyState, SequenceClass, Slice, parse_key
from transforms.coders import BatchCoder

beam.coders.registry.register_coder(GapBatch, BatchCoder)

_END = GlobalWindow().max_timestamp()


class Seed(Protocol):
    """Where the state of a key comes from when a job has none yet. Must pickle.

    What it loads must not hold rows that this job wrote: their gaps would count as declared.
    """

    def open(self) -> None: ...

    def load(self, exchange: str, symbol: str, kind: Kind) -> KeyState | None: ...

    def close(self) -> None: ...


class DetectGaps(beam.PTransform):  # type: ignore[misc]
    """PCollection[tuple[str, Slice]] in the global window -> PCollection[GapBatch], only rows that changed.

    ``bounded``: the slices of a key are gathered and folded once, at the end of the input. Otherwise each key has a
    state, and a slice is folded when the watermark passes its highest element time by ``grace_seconds``. ``seed`` gives
    the state of a key that has none.
    A bundle that is repeated, or a slice that comes twice, changes no row: delivery may be at least once.
    Raises UsageError for a grace below 0.

    Beam counters: ``sequence_<class>`` (messages) and ``gaps_<severity>`` (gaps declared). By ``metrics`` the same in
    Prometheus, by kind. A bundle that is repeated counts again.

    Examples:
        >>> import apache_beam as beam
        >>> import numpy as np
        >>> from k2beam.sequence import slice_runs
        >>> from transforms.detect_gaps import DetectGaps
        >>> [(_, piece)] = slice_runs(np.zeros(3, np.int64), np.array([1, 2, 5]), event_times=np.array([0, 1, 2]))
        >>> with beam.Pipeline(runner="FnApiRunner") as pipeline:
        ...     changed = pipeline | beam.Create([("BINANCE|BTCUSDT|trades", piece)]) | DetectGaps()
        ...     gaps = changed | beam.FlatMap(lambda batch: batch.gaps)
        ...     _ = gaps | beam.Map(lambda gap: (gap.first_missing, gap.last_missing)) | beam.Map(print)
        (3, 4)
    """

    def __init__(
        self,
        grace_seconds: float = 5.0,
        seed: Seed | None = None,
        bounded: bool = True,
        metrics: MetricsConfig = DEFAULT_METRICS,
    ) -> None:
        super().__init__()
        if not grace_seconds >= 0:
            raise UsageError(f"grace_seconds is {grace_seconds}; it must be 0 or more")
        self._grace = round(grace_seconds * 1_000_000)
        self._seed = seed
        self._bounded = bounded
        self._metrics = metrics

    def expand(self, slices: beam.PCollection[tuple[str, Slice]]) -> beam.PCollection[GapBatch]:
        packed = slices | "Pack" >> beam.MapTuple(lambda key, piece: (key, piece.data)).with_output_types(
            tuple[str, bytes]
        )
        if self._bounded:
            # Beam weighs each value of a state by all that hangs on it: with a state, a key costs milliseconds.
            gathered = packed | "Gather" >> beam.GroupByKey()
            fold: _Fold = _FoldGathered(self._seed, self._metrics)
        else:
            # The shuffle keeps the stateful step from being fused with decoding, which would run on one worker then.
            gathered = packed | "Spread" >> beam.Reshuffle()
            fold = _FoldSlices(self._grace, self._seed, self._metrics)
        return gathered | "Fold" >> beam.ParDo(fold).with_output_types(GapBatch)


class _Fold(beam.DoFn):  # type: ignore[misc]
    """What both ways of folding share: where a key's state comes from, and what is counted."""

    def __init__(self, seed: Seed | None, metrics: MetricsConfig) -> None:
        self._seed = seed
        self._metrics_config = metrics

    def setup(self) -> None:
        self._metrics = self._metrics_config.open("detect_gaps")
        if self._seed is not None:
            self._seed.open()

    def teardown(self) -> None:
        if self._seed is not None:
            self._seed.close()

    def _load(self, key: str) -> KeyState:
        name = parse_key(key)
        seeded = self._seed.load(*name) if self._seed is not None else None
        return seeded or KeyState.from_slices(KeyName.read(name.symbol).beginning)

    def _changed(self, key: str, counts: Counts, folded: FoldResult) -> Iterator[GapBatch]:
        """The gaps that changed. Messages are counted by class and gaps by severity, as they are declared."""
        name = parse_key(key)
        gaps = tuple(change.to_gap(name) for change in folded.changes)
        counts.update(folded.counts)
        for found, number in counts.items():
            _COUNTERS[found].inc(number)
            self._metrics.increment("k2_sequence_messages_total", number, kind=name.kind, classification=found.value)
        # What is left of a gap, or filled, is not declared anew.
        for severity, number in Counter(gap.severity for gap in gaps if gap.status == "OPEN").items():
            beam.metrics.Metrics.counter("k2beam", f"gaps_{severity.lower()}").inc(number)
            self._metrics.increment("k2_sequence_gaps_total", number, kind=name.kind, severity=severity)
        if gaps:
            yield GapBatch(gaps)


class _FoldGathered(_Fold):
    """Folds all slices of a key at once."""

    def process(self, element: tuple[str, Iterable[bytes]]) -> Iterator[GapBatch]:
        key, slices = element
        state = self._load(key)
        counts = state.add_all(map(Slice, slices))
        yield from self._changed(key, counts, state.fold())


class _FoldSlices(_Fold):
    """Slices gather in a bag, which is not read until the timer fires; so a slice costs no read of the state."""

    ARRIVED = BagStateSpec("arrived", BytesCoder())
    STATE = ReadModifyWriteStateSpec("sequence", BytesCoder())
    TIMER_AT = ReadModifyWriteStateSpec("timer_at", VarIntCoder())
    DUE = TimerSpec("due", TimeDomain.WATERMARK)

    def __init__(self, grace: int, seed: Seed | None, metrics: MetricsConfig) -> None:
        super().__init__(seed, metrics)
        self._grace = grace

    def process(
        self,
        element: tuple[str, bytes],
        arrived: AccumulatingRuntimeState = beam.DoFn.StateParam(ARRIVED),
        timer_at: ReadModifyWriteRuntimeState = beam.DoFn.StateParam(TIMER_AT),
        due: RuntimeTimer = beam.DoFn.TimerParam(DUE),
    ) -> None:
        data = element[1]
        arrived.add(data)
        at = self._due(Slice(data).highest_element_time)
        known = timer_at.read()
        # A later slice must not push the timer back, or a busy key would never be folded.
        if known is None or at.micros < known:
            due.set(at)
            timer_at.write(at.micros)

    @on_timer(DUE)
    def fold(
        self,
        key: str = beam.DoFn.KeyParam,
        timestamp: Timestamp = beam.DoFn.TimestampParam,
        arrived: AccumulatingRuntimeState = beam.DoFn.StateParam(ARRIVED),
        sequence: ReadModifyWriteRuntimeState = beam.DoFn.StateParam(STATE),
        timer_at: ReadModifyWriteRuntimeState = beam.DoFn.StateParam(TIMER_AT),
        due: RuntimeTimer = beam.DoFn.TimerParam(DUE),
    ) -> Iterator[GapBatch]:
        packed = sequence.read()
        state = self._load(key) if packed is None else KeyState.from_bytes(packed)
        counts = state.add_all(map(Slice, arrived.read()))
        arrived.clear()
        # Runners may fire early: what the timer's own time does not cover goes on waiting.
        folded = state.fold(None if timestamp >= _END else timestamp.micros, self._grace)
        sequence.write(state.to_bytes())
        timer_at.clear()
        if state.next_due is not None:
            at = self._due(state.next_due)
            due.set(at)
            timer_at.write(at.micros)
        yield from self._changed(key, counts, folded)

    def _due(self, element_time: int) -> Timestamp:
        # Runners keep timers in milliseconds: one that is cut off to a time before its slice would fire for ever.
        milliseconds = -(-(element_time + self._grace) // 1000)
        return min(Timestamp(micros=milliseconds * 1000), _END)


_COUNTERS = {name: beam.metrics.Metrics.counter("k2beam", f"sequence_{name.value}") for name in SequenceClass}
