"""What a file shows of the model that it is for, before its names are understood."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property

Widths = Mapping[str, int]
"""Input width of each layer of a file, by canonical name."""

OFTEN = 0.5
"""A claim of names that several families have: enough beside a header or another file."""

Size = tuple[int, int]
"""Rows and columns of a weight."""


@dataclass(frozen=True)
class Evidence:
    """What tells a model family.

    widths
        See Widths: of the layers whose names the older families share.
    text
        The names of all modules, as the file has them, one a line.
    sizes
        Rows and columns of each layer, by the words of its name.
    header
        The label of the family that the header names, None if it names none.
    """

    widths: Widths
    text: str = ""
    sizes: Mapping[str, Size] = field(default_factory=dict)
    header: str | None = None

    @cached_property
    def words(self) -> str:
        """The words of all layers, one a line."""
        return "\n".join(self.sizes)

    def has(self, pattern: str) -> bool:
        """Whether the words of some layer hold this."""
        return re.search(pattern, self.words) is not None

    def highest(self, pattern: str) -> int:
        """The highest block number, a pattern's only group, that the layers tell; -1 for none."""
        return max((int(number) for number in re.findall(pattern, self.words)), default=-1)

    def sizes_of(self, pattern: str) -> Iterator[Size]:
        """Rows and columns of the layers whose words hold this."""
        return (size for words, size in self.sizes.items() if re.search(pattern, words))

    def is_tall(self, pattern: str, ratio: float) -> bool:
        """Whether all layers whose words hold this have so many rows a column, and there are any."""
        sizes = list(self.sizes_of(pattern))
        return bool(sizes) and all(math.isclose(rows, ratio * columns, rel_tol=1e-3) for rows, columns in sizes)

    def contradicts(self, pattern: str, *ratios: float) -> bool:
        """Whether a layer whose words hold this has none of these numbers of rows a column."""
        return any(
            not any(math.isclose(rows, ratio * columns, rel_tol=1e-3) for ratio in ratios)
            for rows, columns in self.sizes_of(pattern)
        )
