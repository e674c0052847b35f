"""How the values of parameters are read and written."""

from __future__ import annotations

import math
import re

from ..errors import RequestError

HARD = math.inf
"""mu that removes everything inside the style's subspace; spelled `hard`."""


def parse_number(key: str, text: str) -> float:
    """A finite number. Raises RequestError."""
    try:
        value = float(text)
    except ValueError:
        decimal_comma = re.fullmatch(r"\s*([+-]?[0-9]*),([0-9]+)\s*", text)
        hint = f" Write {decimal_comma[1]}.{decimal_comma[2]}." if decimal_comma else ""
        raise RequestError(f"{key}={text.strip()} is not a number.{hint}") from None
    if not math.isfinite(value):
        raise RequestError(f"{key}={text.strip()} is not a finite number")
    return value


def parse_mu(text: str) -> float:
    """A number >= 0, or `hard`. Raises RequestError."""
    text = text.strip()
    if text.lower() == "hard":
        return HARD
    try:
        value = parse_number("mu", text)
    except RequestError as error:
        raise RequestError(f"{error.args[0].rstrip('.')}: mu is a number from 0 up, or 'hard'") from None
    if value < 0:
        raise RequestError(f"mu={text} is negative: mu is a number from 0 up, or 'hard'")
    return value


def parse_density(text: str) -> float:
    """A share: 0.2 or 20%. Raises RequestError."""
    share = re.fullmatch(r"(.*[0-9.])\s*%\s*", text)
    value = parse_number("density", share[1]) / 100 if share else parse_number("density", text)
    if not 0 < value <= 1:
        raise RequestError(f"density={text.strip()} is not a share: it is above 0 and at most 1, or at most 100%")
    return value


def parse_seed(text: str) -> int:
    """A whole number from 0 to 2^32 - 1. Raises RequestError."""
    text = text.strip()
    if not re.fullmatch("[0-9]{1,10}", text) or int(text) >= 2**32:
        raise RequestError(f"seed={text} is not a whole number from 0 to {2**32 - 1}")
    return int(text)


def format_number(value: float) -> str:
    """The shortest text that reads back as the same number; `hard` for infinity."""
    return "hard" if value == HARD else repr(float(value)).removesuffix(".0")
