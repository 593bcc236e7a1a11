"""What feeds share whose streams are channels of symbols: that of Coinbase, that of Kraken."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

from k2beam.feeds.feed import EventRecord
from k2beam.feeds.fields import Instrument, check_addresses, stream_of
from k2beam.feeds.records import instrument
from k2beam.model import Kind


@dataclass(frozen=True)
class ChannelFeed:
    """The instruments and channels to read, from whole addresses in order of preference.

    ``channel_kinds`` are all channels that the exchange has and we read, with what they give. Raises UsageError for an
    address that is none.
    """

    instruments: tuple[Instrument, ...]
    channels: tuple[str, ...] = ()
    addresses: tuple[str, ...] = ()
    exchange: ClassVar[str]
    asset_class: ClassVar[str] = "crypto"
    channel_kinds: ClassVar[Mapping[str, Kind]]

    def __post_init__(self) -> None:
        check_addresses(self.addresses, path=True)

    @property
    def kinds(self) -> tuple[Kind, ...]:
        return tuple(kind for channel, kind in self.channel_kinds.items() if channel in self.channels)

    @property
    def streams(self) -> tuple[str, ...]:
        """Such as BTC-USD@matches."""
        return tuple(stream_of(one.symbol, channel) for one in self.instruments for channel in self.channels)

    def parts(self, size: int) -> list[list[str]]:
        """The symbols, ``size`` of them at a time."""
        symbols = [one.symbol for one in self.instruments]
        return [symbols[first : first + size] for first in range(0, len(symbols), size)]

    @cached_property
    def currencies(self) -> dict[str, str]:
        """Of each symbol what it is priced in."""
        return {one.symbol: one.currency for one in self.instruments}

    def traded(self, symbol: str) -> EventRecord:
        """The fields of a record that say what is traded, and where."""
        return instrument(symbol, self.exchange, self.asset_class, self.currencies[symbol])
