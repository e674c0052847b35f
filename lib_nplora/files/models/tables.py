"""Families whose layers are named by a table: what the first authors call a layer, and what diffusers does.

Canonical is the first authors' naming, with underscores for dots, since every WebUI holds its models so. A layer that
diffusers has in slices is one row of the table with several names.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property

from ...errors import FileError
from ...layers.block import Block
from ...layers.key import ModuleKey
from ...maths.delta import Delta, placed, total
from .. import text_encoders
from ..slot import BIAS, Slot, swapped
from .evidence import OFTEN
from .family import PREFIX, Entries, Evidence, Family, Spelling
from .written import entries, flat

Ours = str | tuple[str, ...]
Rows = Mapping[str, Ours]
"""The first authors' name of a layer -> diffusers', or those of the slices that it has there, in the order of their
rows. `{}` stands for the number of a block."""

QKV = ("to_q", "to_k", "to_v")
ADDED_QKV = ("add_q_proj", "add_k_proj", "add_v_proj")
_NUMBER = re.compile(r"(?<=_)\d+(?=_)|(?<=_)\d+$")


def slices(stem: str, ends: Sequence[str]) -> tuple[str, ...]:
    """The names of slices that differ at their end."""
    return tuple(f"{stem}.{end}" for end in ends)


def within(theirs: str, ours: str, rows: Mapping[str, Sequence[str]]) -> dict[str, Ours]:
    """The rows of a kind of block, each name behind the block's."""
    return {
        f"{theirs}.{{}}.{name}": slices(f"{ours}.{{}}", [ends] if isinstance(ends, str) else ends)
        for name, ends in rows.items()
    }


@dataclass(frozen=True)
class Row:
    """What the table says of one layer, with the number of its block.

    theirs, ours
        See Rows.
    slices
        That which the name stands for, if it is one of several of ours, in widths of the layer.
    """

    theirs: str
    ours: tuple[str, ...]
    slices: tuple[Fraction, Fraction] | None = None


@dataclass(frozen=True)
class Table:
    """How files call the layers of one model.

    rows
        See Rows.
    heights
        First authors' name of a layer -> rows of its slices, in widths of the layer, where these are not all 1.
    swapped
        First authors' names of layers whose rows are shift, scale where diffusers has scale, shift.
    others
        Further names of layers -> the first authors'.
    """

    rows: Rows
    heights: Mapping[str, tuple[Fraction, ...]] = field(default_factory=dict)
    swapped: frozenset[str] = frozenset()
    others: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def _found(self) -> dict[str, tuple[str, int | None]]:
        """Name, underscores for dots -> the first authors', and the number of the slice."""
        found: dict[str, tuple[str, int | None]] = {}
        for theirs, ours in self.rows.items():
            names = (ours,) if isinstance(ours, str) else ours
            for number, name in enumerate(names):
                found[flat(name)] = theirs, number if len(names) > 1 else None
        found |= {flat(name): (theirs, None) for name, theirs in self.others.items()}
        return found | {flat(theirs): (theirs, None) for theirs in self.rows}

    def ends(self, theirs: str) -> list[Fraction]:
        """Where the slices of a layer begin and end, in widths of the layer."""
        ours = self.rows[theirs]
        heights = self.heights.get(theirs) or (Fraction(1),) * (1 if isinstance(ours, str) else len(ours))
        return [sum(heights[:number], Fraction(0)) for number in range(len(heights) + 1)]

    def row(self, rest: str) -> Row | None:
        """What the table says of the layer that is named so, dots already underscores; None if it has no such layer."""
        number = ""
        found = self._found.get(rest)
        for match in () if found else _NUMBER.finditer(rest):
            number = match[0]
            if found := self._found.get(f"{rest[: match.start()]}{{}}{rest[match.end() :]}"):
                break
        if found is None:
            return None
        theirs, piece = found
        ours = self.rows[theirs]
        names = (ours,) if isinstance(ours, str) else ours
        ends = self.ends(theirs)
        where = None if piece is None else (ends[piece], ends[piece + 1])
        return Row(theirs.format(number), tuple(name.format(number) for name in names), where)

    def slot_of(self, rest: str) -> Slot | None:
        """The slot of such a layer; None if the table has none."""
        row = self.row(rest)
        if row is None:
            return None
        name = flat(row.theirs)
        is_ours = rest != name and rest in map(flat, row.ours)
        return Slot(PREFIX + name, row.slices, is_ours and self._is_swapped(row))

    def slice_count(self, layer: str) -> int:
        """In how many slices files may hold the layer of this canonical name; 0 for none."""
        row = self.row(layer.removeprefix(PREFIX))
        return len(row.ours) if row and len(row.ours) > 1 else 0

    def whole(self, layers: Mapping[ModuleKey, Delta]) -> dict[str, Delta]:
        """Layers, some of them in slices, by the first authors' names. Raises FileError."""
        parts: dict[str, list[tuple[ModuleKey, Delta]]] = {}
        for key, delta in layers.items():
            parts.setdefault(str(key.name), []).append((key, delta))
        return {self._known(layer).theirs + _bias(layer): self._joined(layer, held) for layer, held in parts.items()}

    def in_slices(self, layers: Mapping[ModuleKey, Delta]) -> dict[str, Delta]:
        """Layers by diffusers' names. Raises FileError for rows that are no whole slices."""
        found: dict[str, Delta] = {}
        for key, delta in layers.items():
            row = self._known(str(key.name))
            if len(row.ours) == 1:
                found[row.ours[0]] = swapped(delta) if self._is_swapped(row) else delta
                continue
            first, behind = key.rows or (0, delta.shape[0])
            ends = [int(end * delta.shape[1]) for end in self.ends(self._pattern(row))]
            if first not in ends or behind not in ends:
                raise FileError(
                    f"rows {first} to {behind} of layer {key.name} are no whole slices of those that diffusers has: "
                    "choose another spelling"
                )
            for name, start, stop in zip(row.ours, ends, ends[1:]):
                if first <= start and stop <= behind:
                    found[name] = delta.rows(start - first, stop - first)
        return found

    def _joined(self, layer: str, held: Sequence[tuple[ModuleKey, Delta]]) -> Delta:
        """One layer of some of its slices; nothing changes in the rows of the others."""
        if held[0][0].rows is None:
            return held[0][1]
        row = self._known(layer)
        ends, some = self.ends(self._pattern(row)), held[0][1]
        if layer.endswith(BIAS):
            height = sum(delta.shape[0] for _, delta in held)
            if len(held) < len(row.ours):
                raise FileError(f"{layer} is changed in some of its slices only: choose diffusers' spelling")
        else:
            height = int(ends[-1] * some.shape[1])
        return total([placed(delta, (key.rows or (0, 0))[0], height) for key, delta in held])

    def _known(self, layer: str) -> Row:
        row = self.row(layer.removeprefix(PREFIX).removesuffix(BIAS))
        assert row is not None
        return row

    def _pattern(self, row: Row) -> str:
        return next(theirs for theirs in self.rows if _matches(theirs, row.theirs))

    def _is_swapped(self, row: Row) -> bool:
        return any(_matches(theirs, row.theirs) for theirs in self.swapped)


def family(
    label: str,
    metadata: Mapping[str, str],
    table: Table,
    blocks: tuple[Block, ...],
    own: Callable[[Evidence], bool],
    excluded: Callable[[Evidence], bool] = lambda evidence: False,
    usual: Spelling = "comfyui",
    readers: Mapping[Spelling, str] | None = None,
    t5: str = text_encoders.T5,
) -> Family:
    """A family whose layers are in such a table.

    own
        Whether a file shows what only this family has.
    excluded
        Whether a file cannot be of this family, whatever its names.
    usual
        The spelling that most hosts read.
    readers
        See Family.
    t5
        What stands before a T5's layers: their text encoder's number.
    """

    def claims(evidence: Evidence) -> float:
        layers = [words.removeprefix(PREFIX) for words in evidence.sizes if words.startswith(PREFIX)]
        if not layers or excluded(evidence) or any(table.row(layer) is None for layer in layers):
            return 0
        return 3 if own(evidence) else OFTEN

    spellings: dict[Spelling, Entries] = {
        "comfyui": lambda layers: entries(layers, table.whole, "diffusion_model.", str, t5),
        "kohya": lambda layers: entries(layers, table.whole, PREFIX, flat, t5),
        "diffusers": lambda layers: (
            entries(_weights(layers), table.in_slices, "transformer.", str, t5)
            | entries(_biases(layers), table.whole, "diffusion_model.", str)
        ),
    }
    return Family(
        label,
        metadata,
        blocks,
        bare=(),
        slot_of=table.slot_of,
        claims=claims,
        entries={usual: spellings[usual], **spellings},
        slice_count=table.slice_count,
        readers=readers or {},
        is_apart=True,
    )


def _weights(layers: Mapping[ModuleKey, Delta]) -> dict[ModuleKey, Delta]:
    biases = _biases(layers)
    return {key: delta for key, delta in layers.items() if key not in biases}


def _biases(layers: Mapping[ModuleKey, Delta]) -> dict[ModuleKey, Delta]:
    """Those of the diffusion model, which no host reads by diffusers' names."""
    return {key: delta for key, delta in layers.items() if key.part != "te" and str(key.name).endswith(BIAS)}


def _bias(layer: str) -> str:
    return BIAS if layer.endswith(BIAS) else ""


def _matches(pattern: str, name: str) -> bool:
    return re.fullmatch(re.escape(pattern).replace(r"\{\}", r"\d+"), name) is not None
