"""How many of the style's directions count as principal: `all`, a number, or a share of the energy."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

from ..errors import RequestError

NUMERICAL_RANK = 2.0**-20
"""Singular values below this share of the largest are rounding noise of float32 factors, not directions."""

TIE = 1e-4
"""Singular values closer than this (relative) span one subspace: any single direction in it is arbitrary."""


@dataclass(frozen=True)
class RankRule:
    """The number k of principal directions.

    At most one field is set; with none, every direction above numerical rank counts (the paper's setting).

    count
        The k largest, k >= 1.
    percent
        The fewest whose energy (sum of s^2) reaches this share, 0 < percent <= 100.

    Singular values that tie at the cut stay together, so that the subspace is well defined.
    """

    count: int | None = None
    percent: float | None = None

    def __post_init__(self) -> None:
        if self.count is not None and self.percent is not None:
            raise RequestError("k is either a number or a share, not both")
        if self.count is not None and self.count < 1:
            raise RequestError(f"k={self.count} is less than 1. Use method=direct to project nothing")
        if self.percent is not None and not 0 < self.percent <= 100:
            raise RequestError(f"k={self} is not a share between 0% and 100%")

    @classmethod
    def parse(cls, text: str) -> RankRule:
        """Read `all`, `8`, `90%` or `0.9`, which is the same share. Raises RequestError."""
        text = text.strip()
        if text.lower() == "all":
            return cls()
        if re.fullmatch(r"[0-9]{1,9}", text):
            return cls(count=int(text))
        if match := re.fullmatch(r"((?:[0-9]+(?:\.[0-9]+)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)\s*%", text):
            return cls(percent=float(match[1]))
        if re.fullmatch(r"0?\.[0-9]{1,20}", text):
            return cls(percent=float(100 * Decimal(text)))
        raise RequestError(f"k={text} is not 'all', a whole number or a share such as 90%")

    def __str__(self) -> str:
        if self.count is not None:
            return str(self.count)
        if self.percent is not None:
            return f"{self.percent!r}%".replace(".0%", "%")
        return "all"

    def rank(self, s: Sequence[float]) -> int:
        """The k that this rule cuts from singular values `s`, largest first."""
        numerical = sum(value > s[0] * NUMERICAL_RANK for value in s) if s and s[0] > 0 else 0
        if numerical == 0 or (self.count is None and self.percent is None):
            return numerical
        if self.count is not None:
            k = min(self.count, numerical)
        else:
            assert self.percent is not None
            energies = [value * value for value in s[:numerical]]
            wanted = math.fsum(energies) * self.percent / 100
            k = next((k for k in range(1, numerical) if math.fsum(energies[:k]) >= wanted), numerical)
        while k < numerical and s[k] >= s[k - 1] * (1 - TIE):
            k += 1
        return k
