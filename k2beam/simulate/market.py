"""A simulated market feed: the messages of one event kind in the order in which they arrive.

Every symbol has one message in each round, in an order drawn anew for each round. The feed is made a
chunk of rounds at a time, so memory does not depend on its length; messages that arrive late
wait from chunk to chunk.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from k2beam.arrays import Ints
from k2beam.simulate.faults import DUPLICATE, FIRST_MALFORMED, LATE, MALFORMED, OUT_OF_ORDER, FaultPlan

MESSAGE = np.dtype(
    [
        ("arrival", np.int64),
        ("key", np.int64),
        ("sequence", np.int64),
        ("timestamp", np.int64),
        ("ingestion", np.int64),
        ("price", np.int64),
        ("quantity", np.int64),
        ("ask_price", np.int64),
        ("ask_quantity", np.int64),
        ("sell", np.bool_),
        ("block", np.bool_),
        ("identifier", np.uint8, (16,)),
        ("fault", np.int64),
    ]
)
"""A message. Times in microseconds UTC, prices and quantities in units of 1e-8 (decimal(18,8)
unscaled), ``fault`` a code of :mod:`k2beam.simulate.faults` (0: none); ``arrival`` orders the feed."""

Messages = npt.NDArray[np.void]

FUTURE = 4_102_444_800_000_000
"""2100-01-01T00:00:00Z: the event time of a message of class timestamp_in_future."""

_CHUNK_MESSAGES = 32_768
_LATE_SECONDS = 20
_LOT = 100_000
_COINS = {
    "BTC": (9_312_045, 1_000_000),
    "ETH": (321_140, 1_000_000),
    "SOL": (17_852, 1_000_000),
    "XRP": (22_314, 10_000),
    "BNB": (70_215, 1_000_000),
    "DOGE": (31_488, 1_000),
    "ADA": (8_861, 10_000),
    "AVAX": (36_470, 100_000),
    "LINK": (21_093, 100_000),
    "DOT": (6_718, 100_000),
    "LTC": (10_432, 1_000_000),
    "TRX": (25_107, 1_000),
}
"""First price in ticks, and the tick in units of 1e-8."""


def symbol_names(number: int) -> list[str]:
    """The first ``number`` symbols of a simulated exchange: well-known pairs, then numbered ones."""
    bases = [*_COINS, *(f"COIN{index:04d}" for index in range(len(_COINS), number))]
    return [f"{base}USDT" for base in bases[:number]]


@dataclass(frozen=True, slots=True)
class FeedConfig:
    """One kind's feed. ``events`` counts its messages without duplicates and malformed ones;
    ``rate`` is messages a second of event time; ``start`` in microseconds UTC."""

    events: int
    keys: int
    start: int
    rate: float


def messages(config: FeedConfig, plan: FaultPlan, rng: np.random.Generator) -> Iterator[Messages]:
    """The feed as arrays of :data:`MESSAGE`, in order of arrival."""
    market = _Market(config, plan, rng)
    rounds_a_chunk = max(1, _CHUNK_MESSAGES // config.keys)
    waiting = np.empty(0, MESSAGE)
    for first in range(0, config.events, rounds_a_chunk * config.keys):
        chunk = market.next_rounds(first // config.keys, rounds_a_chunk)[: config.events - first]
        extras = _apply_faults(chunk, config, rng)
        waiting = np.concatenate([waiting, chunk, extras])
        waiting = waiting[np.argsort(waiting["arrival"], kind="stable")]
        ready = int(np.searchsorted(waiting["arrival"], 2 * (first + len(chunk))))
        yield waiting[:ready]
        waiting = waiting[ready:]
    if len(waiting):
        yield waiting


class _Market:
    """The state that goes on from chunk to chunk: clock, price walks and numbering."""

    def __init__(self, config: FeedConfig, plan: FaultPlan, rng: np.random.Generator) -> None:
        self._config, self._plan, self._rng = config, plan, rng
        self._clock = config.start
        self._offsets = plan.starts.copy()
        known = list(_COINS.values())[: config.keys]
        others = config.keys - len(known)
        first = [*(price for price, _ in known), *rng.integers(2_000, 60_000, others).tolist()]
        ticks = [*(tick for _, tick in known), *(10 ** rng.integers(3, 7, others)).tolist()]
        self._first_price, self._tick = np.array(first, np.int64), np.array(ticks, np.int64)
        self._walk = np.zeros(config.keys, np.int64)

    def next_rounds(self, first_round: int, rounds: int) -> Messages:
        """The messages of ``rounds`` rounds by event time, with the fault of each marked."""
        keys, rng = self._config.keys, self._rng
        shape = (rounds, keys)
        order = np.argsort(rng.random(shape), axis=1)
        out = np.zeros(rounds * keys, MESSAGE)
        out["arrival"] = 2 * (first_round * keys + np.arange(rounds * keys))
        out["key"] = order.ravel()
        out["sequence"] = _in_order(self._sequences(first_round, rounds), order)
        out["fault"] = _in_order(self._faults(first_round, rounds), order)
        out["timestamp"] = self._times(len(out))
        out["ingestion"] = out["timestamp"] + rng.integers(500, 50_000, len(out))
        tick = self._tick[out["key"]]
        out["price"] = _in_order(self._prices(shape), order) * tick
        out["ask_price"] = out["price"] + rng.integers(1, 4, len(out)) * tick
        out["quantity"] = rng.integers(1, 5_000, len(out)) * _LOT
        out["ask_quantity"] = rng.integers(1, 5_000, len(out)) * _LOT
        out["sell"] = rng.integers(0, 2, len(out))
        out["block"] = rng.integers(0, 16, len(out)) == 0
        out["identifier"] = rng.integers(0, 256, (len(out), 16), np.uint8)
        return out

    def _times(self, number: int) -> Ints:
        # Steps from 1 to twice the mean: event times strictly grow, over all keys.
        widest = max(2, round(2_000_000 / self._config.rate))
        times: Ints = self._clock + np.cumsum(self._rng.integers(1, widest, number))
        self._clock = int(times[-1])
        return times

    def _prices(self, shape: tuple[int, int]) -> Ints:
        walk = self._walk + np.cumsum(self._rng.integers(-3, 4, shape), axis=0)
        self._walk = walk[-1]
        # Folded back at half and at twice the first price, so that a long walk stays positive.
        low = self._first_price // 2
        span = self._first_price * 2 - low
        folded: Ints = low + span - np.abs((walk + self._first_price - low) % (2 * span) - span)
        return folded

    def _sequences(self, first_round: int, rounds: int) -> Ints:
        plan = self._plan
        shifts = np.zeros((rounds, self._config.keys), np.int64)
        here = slice(*np.searchsorted(plan.shift_rounds, [first_round, first_round + rounds]))
        shifts[plan.shift_rounds[here] - first_round, plan.shift_keys[here]] = plan.shifts[here]
        offsets = self._offsets + np.cumsum(shifts, axis=0)
        self._offsets = offsets[-1]
        sequences: Ints = offsets + np.arange(first_round, first_round + rounds)[:, None]
        return sequences

    def _faults(self, first_round: int, rounds: int) -> Ints:
        plan = self._plan
        codes = np.zeros((rounds, self._config.keys), np.int64)
        here = slice(*np.searchsorted(plan.fault_rounds, [first_round, first_round + rounds]))
        codes[plan.fault_rounds[here] - first_round, plan.fault_keys[here]] = plan.fault_codes[here]
        return codes


def _in_order(values: Ints, order: npt.NDArray[np.intp]) -> Ints:
    return np.take_along_axis(values, order, axis=1).ravel()


def _apply_faults(chunk: Messages, config: FeedConfig, rng: np.random.Generator) -> Messages:
    """Delay what comes late, in place; the duplicates and malformed copies are returned.

    Delays are in messages. Two rounds on, at least one later message of the same key has passed.
    """
    two_rounds = 2 * config.keys
    shortest = max(two_rounds, min(int(config.rate * _LATE_SECONDS), config.events // 4))
    fault = chunk["fault"]
    chunk["arrival"][fault == OUT_OF_ORDER] += 2 * two_rounds + 1
    late = fault == LATE
    chunk["arrival"][late] += 2 * rng.integers(shortest, 2 * shortest, np.count_nonzero(late)) + 1
    copied = (fault == DUPLICATE) | (fault >= FIRST_MALFORMED)
    extras: Messages = chunk[copied]
    extras["arrival"] += 2 * rng.integers(0, 2 * two_rounds, len(extras)) + 1
    # The fault is that of the copy: the message itself is a good one.
    fault[copied] = 0
    _spoil_values(extras)
    return extras


def _spoil_values(extras: Messages) -> None:
    """Give the copies the wrong values of their class; what is wrong with bytes is done on bytes."""
    codes = extras["fault"] - FIRST_MALFORMED
    extras["price"][codes == MALFORMED.index("decimal_overflow")] = 10**18
    negative = codes == MALFORMED.index("negative_price")
    extras["price"][negative] = -extras["price"][negative]
    extras["timestamp"][codes == MALFORMED.index("timestamp_in_future")] = FUTURE
