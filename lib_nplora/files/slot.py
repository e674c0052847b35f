"""Which layer of a model, and which rows of it, a module of a file is for."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from ..layers.place import Part
from ..maths.delta import Delta
from ..maths.dense import DenseDelta
from ..maths.lowrank import LowRankDelta


@dataclass(frozen=True)
class Slot:
    """A layer, or a slice of its output rows.

    layer
        The layer's canonical name: see names.py.
    slices
        (first, behind the last) of the equal slices of a fused layer (q, k, v and, of unequal size, mlp) that the
        module holds, or where it begins and ends in widths of the layer; None for the whole layer.
    swapped
        Whether the file has the two halves of the rows the other way round, if there are two: scale and shift of a
        final norm.
    """

    layer: str
    slices: tuple[int | Fraction, int | Fraction] | None = None
    swapped: bool = False

    @property
    def part(self) -> Part:
        return "te" if self.layer.startswith("lora_te") else "unet"

    @property
    def has_mlp(self) -> bool:
        return self.slices is not None and self.slices[1] == MLP + 1

    def rows(self, shape: tuple[int, ...]) -> tuple[int, int] | None:
        """(start, stop) in the layer of a weight or bias of this shape. Raises ValueError if it cannot be there."""
        if self.slices is None:
            return None
        first, last = self.slices
        width = shape[1] if len(shape) > 1 else int(shape[0] / (MLP_RATIO if self.has_mlp else last - first))
        start = int(first * width)
        if not self.has_mlp and shape[0] != (last - first) * width:
            raise ValueError(f"{shape[0]} rows where {int((last - first) * width)} belong")
        return start, start + shape[0]

    def is_swapped(self, shape: tuple[int, ...]) -> bool:
        """Whether a weight or bias of this shape has halves that are swapped."""
        return self.swapped and (len(shape) == 1 or shape[0] == 2 * shape[1])


BIAS = ".bias"
"""How the name of a bias's delta ends, after its layer's."""

MLP = 3
"""The slice behind q, k and v."""
MLP_RATIO = 4
"""Heights of q that mlp has."""


def swapped(delta: Delta) -> Delta:
    """The delta with the upper and the lower half of its rows exchanged."""
    half = delta.shape[0] // 2
    if isinstance(delta, LowRankDelta):
        return LowRankDelta(delta.up.roll(half, 0), delta.down, delta.kernel)
    return DenseDelta(delta.matrix.roll(half, 0), delta.layer_shape)
