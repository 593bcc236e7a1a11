"""Names of topics.

A topic is ``market.{asset_class}.{kind}.{exchange}``. Kafka allows letters, digits, ``.``, ``_`` and ``-``, and
249 characters (Kafka's documentation, ``org.apache.kafka.common.internals.Topic``).
"""

from __future__ import annotations

import re
from typing import NamedTuple

from k2beam.errors import UsageError
from k2beam.model import KINDS, Kind

MAX_NAME = 249
_LEGAL = re.compile(r"[a-zA-Z0-9._-]{1,249}")
_TOPIC = re.compile(rf"market\.([a-z]+)\.({'|'.join(KINDS)})\.([a-z0-9_-]+)")


class TopicParts(NamedTuple):
    """What the name of a topic says."""

    asset_class: str
    kind: Kind
    exchange: str


def topic_name(asset_class: str, kind: Kind, exchange: str) -> str:
    """The topic of an asset class, kind and exchange, in lower case: ``market.crypto.trades.binance``.

    A character of the exchange that has no place in the name becomes ``-``; the record has it as it was. Raises
    UsageError for an exchange without a letter or digit of ASCII, and for a name that is too long.
    """
    part = re.sub(r"[^a-z0-9_-]", "-", exchange.lower())
    name = f"market.{asset_class.lower()}.{kind}.{part}"
    if not re.search(r"[a-z0-9]", part) or len(name) > MAX_NAME:
        raise UsageError(
            f"exchange {exchange!r:.100} does not make a topic name: it needs letters or digits, not too many"
        )
    return name


def parse_topic(name: str) -> TopicParts | None:
    """Asset class, kind and exchange (in lower case) of a topic; None for a topic of another form."""
    found = _TOPIC.fullmatch(name)
    if found is None:
        return None
    kind = next(kind for kind in KINDS if kind == found[2])
    return TopicParts(found[1], kind, found[3])


def check_topic_name(name: str) -> None:
    """Raises UsageError for a name that Kafka does not allow."""
    if not _LEGAL.fullmatch(name) or name in (".", ".."):
        raise UsageError(f"{name!r:.300} is not a topic name: at most {MAX_NAME} of a-z A-Z 0-9 . _ -")


def topic_of_source(source: str) -> str:
    """The name of the topic in a source: a topic's id may hold a slash, its name may not.

    Examples:
        >>> from k2beam.topics import topic_of_source
        >>> topic_of_source("kafka:Zk9_x/market.trades/a/b==")
        'market.trades'
    """
    return source.split("/", 2)[1]
