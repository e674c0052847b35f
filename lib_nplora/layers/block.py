"""A block of a model, as users name it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import total_ordering

from ..errors import RequestError, did_you_mean

LABELS = ("te", "in", "mid", "double", "single", "out")
"""Text encoders, a UNet's input, middle and output, a transformer's two kinds of blocks; in the order of the model."""

UNKNOWN = "other"
"""The label of layers that no known model has."""


@total_ordering
@dataclass(frozen=True)
class Block:
    """A block of a model, or all blocks of a label. Sorts in the order of the model.

    label
        One of LABELS, or UNKNOWN.
    number
        That of the text encoder (1 is CLIP-L, or the only one; 2 is CLIP-G; 3 is T5), of input_blocks or output_blocks,
        or of a transformer's block. None in a request: all that have the label. None for a layer: what comes in before
        the first block and goes out after the last one, `mid`, and UNKNOWN.
    """

    label: str
    number: int | None = None

    @classmethod
    def parse(cls, text: str) -> Block:
        """The block that `text` names, in capitals or not: `out1`, `OUT01`, `mid`. Raises RequestError."""
        name = text.strip().lower()
        label = name.rstrip("0123456789")
        number = name.removeprefix(label)
        if label not in (*LABELS, UNKNOWN) or len(number) > 4:
            hint = did_you_mean(name, [known if known == "mid" else f"{known}{number[:4]}" for known in LABELS])
            raise RequestError(
                f"there is no block '{text.strip()}'.{hint} Blocks are {', '.join(LABELS[:-1])} and {LABELS[-1]}, "
                "each also with a number: out1."
            )
        return cls(label, int(number) if number else None)

    def covers(self, other: Block) -> bool:
        """Whether `other` is this block, or one of those that this one stands for."""
        return self.label == other.label and self.number in (None, other.number)

    def __str__(self) -> str:
        return self.label if self.number is None else f"{self.label}{self.number}"

    def __lt__(self, other: Block) -> bool:
        return self._position < other._position

    @property
    def _position(self) -> tuple[int, float]:
        unnumbered = math.inf if self.label == "out" else -math.inf
        return (*LABELS, UNKNOWN).index(self.label), unnumbered if self.number is None else self.number
