"""The rules of sequences, kept with the tables: a property of the ledger, so that whoever counts follows the same."""

from __future__ import annotations

from collections.abc import Mapping

from pyiceberg.catalog import Catalog

from k2beam.lake.scan import find_readable
from k2beam.lake.tables import SEQUENCE_GAPS, open_table
from k2beam.lake.transaction import change_properties
from k2beam.sequence import SequenceRules
from k2beam.sequence.rules import NO_RULES

RULES_PROPERTY = "k2.sequences"


def read_rules(catalog: Catalog, namespace: str) -> SequenceRules:
    """The rules of a namespace; none where none were given. Raises UnreadableFile for metadata that is gone."""
    table = find_readable(catalog, namespace, SEQUENCE_GAPS)
    return NO_RULES if table is None else _of(table.properties)


def keep_rules(catalog: Catalog, namespace: str, rules: SequenceRules) -> None:
    """Put ``rules`` in the place of those that there are. The next reconcile brings the ledger in line with them.

    Raises CommitConflict and CommitUnknown as a commit does.
    """

    change_properties(
        lambda: open_table(catalog, namespace, SEQUENCE_GAPS),
        lambda properties: {} if _of(properties) == rules else {RULES_PROPERTY: rules.to_json()},
    )


def _of(properties: Mapping[str, str]) -> SequenceRules:
    text = properties.get(RULES_PROPERTY)
    return NO_RULES if text is None else SequenceRules.from_json(text)
