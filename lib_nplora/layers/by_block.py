"""One value for a whole model, with exceptions by block: `0.5,mid@2,out@hard`."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from ..errors import RequestError
from .block import UNKNOWN, Block

T = TypeVar("T")

AT = "@"
"""Stands between a block and its value."""

Exceptions = tuple[tuple[Block, T], ...]
"""(block, value) pairs, each block once, in the order of the model."""


@dataclass(frozen=True)
class ByBlock(Generic[T]):
    """A strength.

    usual
        Counts wherever there is no exception.
    exceptions
        See Exceptions. A block with its number counts before all blocks of that label.
    """

    usual: T
    exceptions: Exceptions[T] = ()

    def at(self, block: Block | None) -> T:
        """The value in a block; the usual one for None."""
        found = [pair for pair in self.exceptions if block is not None and pair[0].covers(block)]
        return max(found, key=lambda pair: pair[0].number is not None)[1] if found else self.usual

    def written(self, write: Callable[[T], str]) -> str:
        """The text that reads back as this."""
        return ",".join([write(self.usual), *written_exceptions(self.exceptions, write)])


def read_by_block(text: str, read: Callable[[str], T], usual: T) -> ByBlock[T]:
    """Read `0.5`, `0.5,mid@2` or, with the usual value as it is given here, `mid@2`. Raises RequestError.

    read
        How one value is read.
    """
    if AT not in text:
        return ByBlock(read(text))
    first, *pieces = text.split(",")
    if AT in first:
        return ByBlock(usual, read_exceptions([first, *pieces], read))
    return ByBlock(read(first), read_exceptions(pieces, read))


def read_exceptions(pieces: Sequence[str], read: Callable[[str], T]) -> Exceptions[T]:
    """Read pieces such as `mid@2`. Raises RequestError."""
    found: dict[Block, T] = {}
    for piece in pieces:
        block, at, value = piece.partition(AT)
        if not (at and block.strip() and value.strip()):
            decimals = f", decimals with a point: 0.{piece}" if piece.isdecimal() else ""
            raise RequestError(
                f"'{piece.strip()}' is no exception by block: write it as block@value, such as mid@2{decimals}"
            )
        key = Block.parse(block)
        if key in found:
            raise RequestError(f"block {key} is given twice")
        found[key] = read(value.strip())
    return tuple(sorted(found.items(), key=lambda pair: pair[0]))


def read_line(line: str, read: Callable[[str], T]) -> Exceptions[T]:
    """Read `mid@2,out@hard`, with commas or blanks between; nothing is no exception. Raises RequestError."""
    return read_exceptions([piece for piece in re.split(r"[\s,;]+", line) if piece], read)


def written_exceptions(exceptions: Iterable[tuple[Block, T]], write: Callable[[T], str]) -> list[str]:
    """Pieces such as `mid@2`."""
    return [f"{block}{AT}{write(value)}" for block, value in exceptions]


def check_blocks(asked: Iterable[Block], there: Collection[Block]) -> None:
    """Raises RequestError for a block that is not among those of the model, with a list of these."""
    for block in asked:
        if there and not any(block.covers(other) for other in there):
            raise RequestError(f"this model has no block {block}: it has {listed(there)}")


def listed(blocks: Iterable[Block]) -> str:
    """Blocks in a few words: `te1, in0 to in11, mid and out0 to out11`."""
    numbers: dict[str, list[int]] = {}
    for block in sorted(set(blocks)):
        found = numbers.setdefault(block.label, [])
        if block.number is not None:
            found.append(block.number)
    words = [word for label, found in numbers.items() if label != UNKNOWN for word in _runs(label, found)]
    return " and ".join(filter(None, (", ".join(words[:-1]), words[-1]))) if words else "none that is known"


def _runs(label: str, numbers: Sequence[int]) -> list[str]:
    """`in1 to in3` for numbers without a gap, one by one otherwise; the label alone for none."""
    first = [number for number in numbers if number - 1 not in numbers]
    last = [number for number in numbers if number + 1 not in numbers]
    runs = [f"{label}{a}" if a == b else f"{label}{a} to {label}{b}" for a, b in zip(first, last)]
    return runs or [label]
