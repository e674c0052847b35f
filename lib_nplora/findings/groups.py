"""Layers that both LoRAs hold, measured together: by part and by block."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import median

from ..fusion.interference import Interference
from ..layers.block import Block
from ..layers.key import ModuleKey

SAME_START = 0.2
"""Likeness of the two LoRAs' `down` factors that only a common start gives: unrelated ones stay within some 0.06."""

PARTS = {"unet": "diffusion model", "te": "text encoder"}
"""Part -> what it is called."""


@dataclass(frozen=True)
class Group:
    """Layers that both LoRAs hold, taken together: means weighted by the content's energy.

    norm_ratio
        |content| / |style|; None if the style is all zeros.
    start
        Median of the layers' likeness; None if none has factors.
    The others are those of Interference.
    """

    layers: int
    overlap: float
    chance: float
    inside: float
    removed: float
    norm_ratio: float | None
    style_rank: float
    start: float | None

    @classmethod
    def of(cls, rows: Iterable[Interference]) -> Group:
        rows = list(rows)
        content, style = (sum(getattr(row, f"{side}_energy") for row in rows) for side in ("content", "style"))

        def mean(name: str) -> float:
            return sum(row.content_energy * getattr(row, name) for row in rows) / content if content else 0.0

        starts = [row.start for row in rows if row.start is not None]
        return cls(
            len(rows),
            overlap=mean("overlap"),
            chance=mean("chance"),
            inside=mean("inside"),
            removed=mean("removed"),
            norm_ratio=math.sqrt(content / style) if style else None,
            style_rank=mean("style_rank"),
            start=median(starts) if starts else None,
        )

    @property
    def same_start(self) -> bool:
        return self.start is not None and self.start > SAME_START

    @property
    def times_chance(self) -> float:
        return self.overlap / self.chance if self.chance else 0.0


def groups_by_part(rows: Mapping[ModuleKey, Interference]) -> dict[str, Group]:
    """Part, in words -> its layers."""
    parts = {part: [row for key, row in rows.items() if key.part == part] for part in PARTS}
    return {PARTS[part]: Group.of(found) for part, found in parts.items() if found}


def groups_by_block(rows: Mapping[ModuleKey, Interference]) -> dict[str, Group]:
    """Block, in the order of the model -> its layers."""
    blocks: dict[Block, list[Interference]] = {}
    for key, row in rows.items():
        blocks.setdefault(key.place.block, []).append(row)
    return {str(block): Group.of(blocks[block]) for block in sorted(blocks)}
