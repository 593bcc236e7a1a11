"""Text to numbers, exact to the last digit. Whole columns at once.

A number is digits with an optional sign, point and exponent; nothing is rounded: what does not fit decimal(18,8) is
told apart from what is no number.
"""

from __future__ import annotations

from decimal import Context, Decimal, Inexact, InvalidOperation, Overflow
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from k2beam.arrays import Ints, Mask, mask_of, text_bytes, whole_numbers

_SCALE = 8
_WHOLE_DIGITS = 10
_LIMIT = 10 ** (_WHOLE_DIGITS + _SCALE)
_PLAIN = r"^(?P<sign>[+-]?)0*(?P<whole>\d*)(?:\.(?P<part>\d*?)0*)?$"
_NUMBER = r"^[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d{1,3})?$"
_INTEGER = r"^(?P<sign>[+-]?)0*(?P<whole>\d{1,60})$"
_INT64_DIGITS = 19
# Exact, or an error: a text of many digits is not rounded into one that fits.
_EXACT = Context(prec=64, traps=[Inexact, InvalidOperation, Overflow])


class Numbers(NamedTuple):
    """Unscaled values (0 where there is none), and masks of rows that are no number or do not fit."""

    values: Ints
    unreadable: Mask
    overflow: Mask


def read_decimals(texts: pa.StringArray, scale: int = 0) -> Numbers:
    """A column of text (no nulls) as unscaled decimal(18,8); with ``scale`` a number stands for so many digits less."""
    unreadable = ~mask_of(pc.match_substring_regex(texts, _NUMBER))
    found = pc.extract_regex(texts, pattern=_PLAIN)
    plain = mask_of(found.is_valid()) & ~unreadable
    whole, part, sign = (pc.fill_null(pc.struct_field(found, [name]), "") for name in ("whole", "part", "sign"))
    if scale:
        shifted = pc.utf8_lpad(whole, scale, "0")
        whole = pc.utf8_ltrim(pc.utf8_slice_codeunits(shifted, 0, -scale), "0")
        part = pc.utf8_rtrim(pc.binary_join_element_wise(pc.utf8_slice_codeunits(shifted, -scale), part, ""), "0")
    fits = plain & (text_bytes(whole) <= _WHOLE_DIGITS) & (text_bytes(part) <= _SCALE)
    digits = pc.binary_join_element_wise(whole, pc.utf8_rpad(part, _SCALE, "0"), "")
    values = whole_numbers(pc.if_else(pa.array(fits), digits, "0"))
    values[mask_of(pc.equal(sign, "-"))] *= -1
    overflow = plain & ~fits
    for row in np.flatnonzero(~plain & ~unreadable).tolist():
        exact = _unscaled(texts[row].as_py(), scale)
        overflow[row] = exact is None
        values[row] = exact or 0
    return Numbers(values, unreadable, overflow)


def read_integers(texts: pa.StringArray) -> Numbers:
    """A column of text (no nulls) as whole numbers of 64 bits, the least one left out."""
    found = pc.extract_regex(texts, pattern=_INTEGER)
    readable = mask_of(found.is_valid())
    sign, whole = (pc.if_else(pa.array(readable), found.field(name), "0") for name in ("sign", "whole"))
    padded = pc.utf8_lpad(whole, _INT64_DIGITS, "0")
    fits = (text_bytes(whole) <= _INT64_DIGITS) & mask_of(pc.less_equal(padded, str(2**63 - 1)))
    values = whole_numbers(pc.if_else(pa.array(fits), whole, "0"))
    values[mask_of(pc.equal(sign, "-"))] *= -1
    return Numbers(values, ~readable, readable & ~fits)


def _unscaled(text: str, scale: int) -> int | None:
    """The unscaled value of a number with an exponent; None where it does not fit."""
    try:
        scaled = _EXACT.create_decimal(text).scaleb(_SCALE - scale, _EXACT)
        value = scaled.to_integral_exact(context=_EXACT)
    except (Inexact, InvalidOperation, Overflow):
        return None
    return int(value) if abs(value) < Decimal(_LIMIT) else None
