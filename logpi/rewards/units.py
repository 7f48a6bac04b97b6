r"""Reads units of measure: the quantity that a unit measures, and its size.

    unit("cm^2") = ({"length": 2}, 1/10000)
    unit("miles per hour") = ({"length": 1, "time": -1}, 0.44704)

An unknown word (apples, ways) gives None. Left out: conversion between temperature scales, and
other units of physics.
"""

from __future__ import annotations

import re
from fractions import Fraction
from functools import lru_cache

from logpi.rewards.notation import CURRENCY

SCALES = {
    "hundred": 100,
    "thousand": 1_000,
    "million": 10**6,
    "billion": 10**9,
    "trillion": 10**12,
    "dozen": 12,
}
# quantity: names = size; a final s is dropped from longer names
_TABLE = {
    "length": (
        "mm,millimeter,millimetre=1/1000 cm,centimeter,centimetre,厘米=1/100 dm,decimeter=1/10"
        " m,meter,metre,米=1 km,kilometer,kilometre,公里,千米=1000 in,inch,inches,inche=127/5000"
        " ft,foot,feet=381/1250 yd,yard=1143/1250 mi,mile=201168/125"
    ),
    "mass": (
        "mg,milligram=1/1000000 g,gram,克=1/1000 kg,kilogram,千克,公斤=1 lb,lbs=45359237/100000000"
        " ton,tonne=1000"
    ),
    "time": (
        "ms,millisecond=1/1000 s,sec,second=1 min,minute=60 h,hr,hour=3600 day=86400 week=604800"
        " month=2629746 year=31556952"
    ),
    "volume": "ml,milliliter,millilitre=1/1000 l,liter,litre=1",
    "dollars": f"{CURRENCY},dollar,usd=1 cent,¢=1/100",
    "euros": "€,euro,eur=1",
    "pounds sterling": "£,gbp=1",
    "yen": "¥=1",
    "celsius": "c,celsius=1",
    "fahrenheit": "f,fahrenheit=1",
}
KNOWN: dict[str, tuple[str, Fraction]] = {
    name: (quantity, Fraction(entry.partition("=")[2]))
    for quantity, entries in _TABLE.items()
    for entry in entries.split()
    for name in entry.partition("=")[0].split(",")
}
_POWERS = {"square": 2, "sq": 2, "cubic": 3, "cu": 3}
_SHORT = {
    "mph": "mile per hour",
    "kph": "km per hour",
    "squared": "^2",
    "cubed": "^3",
    "degree": "",
    "degrees": "",
}
_PIECE = re.compile(
    r"(/|(?<![a-z])per(?![a-z]))|([^\W\d_]+|[¤€£¥¢])\.?|\^\s*\{?\s*(-?[0-9])\s*\}?"
    r"|[\s.·*-]|\\cdot|(.)"
)


@lru_cache(4096)
def unit(text: str) -> tuple[dict[str, int], Fraction] | None:
    """The quantity and the size of a unit, or None if a word is unknown.

    >>> unit("square feet") == unit("ft^2"), unit("apples")
    (True, None)
    """
    quantity: dict[str, int] = {}
    size, sign, coming, last = Fraction(1), 1, 1, None
    text = re.sub(r"[a-z]+", lambda m: _SHORT.get(m[0], m[0]), text.lower())
    for per, word, power, strange in _PIECE.findall(text):
        if strange:
            return None
        if per:
            sign = -1
        elif word in _POWERS:
            coming = _POWERS[word]
        elif word:
            singular = word[:-1] if len(word) > 3 and word.endswith("s") else word
            measure = KNOWN.get(word) or KNOWN.get(singular)
            if measure is None:
                return None
            last = (measure, sign * coming)
            quantity, size, coming = _times(quantity, *last), size * measure[1] ** last[1], 1
        elif power and last:
            more = last[1] * (int(power) - 1)
            quantity, size = _times(quantity, last[0], more), size * last[0][1] ** more
    return ({q: n for q, n in quantity.items() if n}, size) if last else None


def _times(quantity: dict[str, int], measure: tuple[str, Fraction], power: int) -> dict[str, int]:
    return quantity | {measure[0]: quantity.get(measure[0], 0) + power}
