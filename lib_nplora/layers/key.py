"""A layer's identity."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, replace

from .place import Part, Place, place_of

__all__ = ["ModuleKey", "Part"]


@dataclass(frozen=True)
class ModuleKey:
    """A layer's identity, opaque to the core.

    name
        Whatever the host or the file format tells its layers apart by.
    part
        The diffusion model (`unet`) or a text encoder (`te`).
    rows
        (start, stop) of the layer's output rows, for a LoRA that has q, k and v of a fused layer one by one; None for
        the whole layer.
    """

    name: Hashable
    part: Part
    rows: tuple[int, int] | None = None

    @property
    def layer(self) -> ModuleKey:
        """The whole layer."""
        return replace(self, rows=None)

    @property
    def place(self) -> Place:
        """Where in the model the layer stands, and what it does there."""
        return place_of(str(self.name), self.part)

    def __str__(self) -> str:
        return f"{self.name}[{self.rows[0]}:{self.rows[1]}]" if self.rows else str(self.name)
