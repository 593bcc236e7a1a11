"""Text to numbers, exact to the last digit. Whole columns at once.

A number is digits with an optional sign, point and exponent; nothing is rounded: what does not fit the columns is told
apart from what is no number.
"""

from __future__ import annotations

from decimal import Context, Decimal, Inexact, InvalidOperation, Overflow
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from k2beam.arrays import Mask, mask_of, text_bytes, whole_numbers
from k2beam.codec.decimals import NARROW_DIGITS, of_words, shifted
from k2beam.model import DECIMAL

_SHORT_SCALE = 8
_WHOLE_DIGITS = DECIMAL.precision - DECIMAL.scale
_PLAIN = r"^(?P<sign>[+-]?)0*(?P<whole>\d*)(?:\.(?P<part>\d*?)0*)?$"
_NUMBER = r"^[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d{1,3})?$"
_INTEGER = r"^(?P<sign>[+-]?)0*(?P<whole>\d{1,60})$"
_INT64_DIGITS = 19
# Exact, or an error: a text of many digits is not rounded into one that fits.
_EXACT = Context(prec=76, traps=[Inexact, InvalidOperation, Overflow])


class Numbers(NamedTuple):
    """Values (anything where there is none), and masks of rows that are no number or do not fit."""

    values: pa.Array
    unreadable: Mask
    overflow: Mask


def read_decimals(texts: pa.StringArray, scale: int = 0) -> Numbers:
    """A column of text (no nulls) as decimals; with ``scale`` a number stands for so many digits less."""
    unreadable = ~mask_of(pc.match_substring_regex(texts, _NUMBER))
    found = pc.extract_regex(texts, pattern=_PLAIN)
    plain = mask_of(found.is_valid()) & ~unreadable
    whole, part, sign = (pc.fill_null(pc.struct_field(found, [name]), "") for name in ("whole", "part", "sign"))
    if scale:
        padded = pc.utf8_lpad(whole, scale, "0")
        whole = pc.utf8_ltrim(pc.utf8_slice_codeunits(padded, 0, -scale), "0")
        part = pc.utf8_rtrim(pc.binary_join_element_wise(pc.utf8_slice_codeunits(padded, -scale), part, ""), "0")
    digits, places = text_bytes(whole), text_bytes(part)
    fits = plain & (digits <= _WHOLE_DIGITS) & (places <= DECIMAL.scale)
    short = (digits <= NARROW_DIGITS - _SHORT_SCALE) & (places <= _SHORT_SCALE)
    values = (_short if short[fits].all() else _long)(whole, part, sign, pa.array(fits))
    overflow = plain & ~fits
    others = ~plain & ~unreadable
    if others.any():
        exact = [_exact(text, scale) for text in texts.filter(pa.array(others)).to_pylist()]
        overflow[others] = [one is None for one in exact]
        values = pc.replace_with_mask(values, pa.array(others), pa.array([one or 0 for one in exact], DECIMAL))
    return Numbers(values, unreadable, overflow)


def _short(whole: pa.Array, part: pa.Array, sign: pa.Array, fits: pa.Array) -> pa.Array:
    """Numbers of few digits, which is quicker than :func:`_long`."""
    digits = pc.binary_join_element_wise(whole, pc.utf8_rpad(part, _SHORT_SCALE, "0"), "")
    values = whole_numbers(pc.if_else(fits, digits, "0"))
    values[mask_of(pc.equal(sign, "-"))] *= -1
    return of_words(shifted(values, DECIMAL.scale - _SHORT_SCALE), DECIMAL)


def _long(whole: pa.Array, part: pa.Array, sign: pa.Array, fits: pa.Array) -> pa.Array:
    digits = (pc.utf8_lpad(whole, 1, "0"), ".", pc.utf8_rpad(part, 1, "0"))
    written = pc.binary_join_element_wise(pc.if_else(pc.equal(sign, "-"), "-", ""), *digits, "")
    return pc.if_else(fits, written, "0").cast(DECIMAL)


def read_integers(texts: pa.StringArray) -> Numbers:
    """A column of text (no nulls) as whole numbers of 64 bits, the least one left out."""
    found = pc.extract_regex(texts, pattern=_INTEGER)
    readable = mask_of(found.is_valid())
    sign, whole = (pc.if_else(pa.array(readable), found.field(name), "0") for name in ("sign", "whole"))
    padded = pc.utf8_lpad(whole, _INT64_DIGITS, "0")
    fits = (text_bytes(whole) <= _INT64_DIGITS) & mask_of(pc.less_equal(padded, str(2**63 - 1)))
    values = whole_numbers(pc.if_else(pa.array(fits), whole, "0"))
    values[mask_of(pc.equal(sign, "-"))] *= -1
    return Numbers(pa.array(values), ~readable, readable & ~fits)


def _exact(text: str, scale: int) -> Decimal | None:
    """A number with an exponent; None where it does not fit."""
    try:
        value = _EXACT.create_decimal(text).scaleb(-scale, _EXACT)
        value = value.quantize(Decimal(1).scaleb(-DECIMAL.scale), context=_EXACT)
    except (Inexact, InvalidOperation, Overflow):
        return None
    return value if abs(value) < 10**_WHOLE_DIGITS else None
