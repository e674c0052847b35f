"""A delta weight in either form."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Union

import torch

from .dense import DenseDelta
from .lowrank import LowRankDelta, concat
from .products import trivial
from .remade import Remade

Delta = Union[LowRankDelta, DenseDelta]  # noqa: UP007
"""Both answer to: shape, kernel, nbytes, has_input_side, is_finite, scaled, on_input, on_output, transposed, inside,
rows, write_rows, dense, energy.
"""


def total(deltas: Sequence[Delta]) -> Delta:
    """The sum of `deltas` (at least one, equal shapes): factors as long as all are, a matrix otherwise."""
    low_rank = [delta for delta in deltas if isinstance(delta, LowRankDelta)]
    dense = [delta for delta in deltas if isinstance(delta, DenseDelta)]
    if not dense:
        return concat(low_rank)
    if len(deltas) == 1:
        return dense[0]
    remade = [delta for delta in dense if isinstance(delta, Remade)]
    if len(remade) == len(dense):
        return Remade.total(remade, low_rank)
    matrix = dense[0].matrix.to(torch.float32, copy=True)
    for delta in dense[1:]:
        matrix += delta.matrix
    for factors in low_rank:
        matrix.addmm_(factors.up, factors.down)
    return DenseDelta(matrix, dense[0].layer_shape)


def equal(one: Delta, other: Delta) -> bool:
    """Whether both hold the same numbers in the same form."""
    if isinstance(one, LowRankDelta) and isinstance(other, LowRankDelta):
        return torch.equal(one.down, other.down) and torch.equal(one.up, other.up)
    return isinstance(one, DenseDelta) and isinstance(other, DenseDelta) and torch.equal(one.matrix, other.matrix)


def whole(delta: Delta) -> DenseDelta:
    """The same delta without factors."""
    if isinstance(delta, DenseDelta):
        return delta
    channels = delta.shape[1] // math.prod(delta.kernel)
    return DenseDelta(delta.dense(), (delta.shape[0], channels, *delta.kernel))


def factored(delta: Delta) -> LowRankDelta:
    """The same delta as factors; of one that has none, itself and the identity, whichever side gives the lower rank."""
    if isinstance(delta, LowRankDelta):
        return delta
    return LowRankDelta(*trivial(delta.matrix), delta.kernel)


def placed(delta: Delta, start: int, out: int) -> Delta:
    """The update of a layer of `out` rows that is `delta` from row `start` on, and nothing elsewhere."""

    def widen(side: torch.Tensor) -> torch.Tensor:
        wide = side.new_zeros(out, side.shape[1])
        wide[start : start + side.shape[0]] = side
        return wide

    if isinstance(delta, DenseDelta):
        return DenseDelta(widen(delta.matrix), (out, *delta.layer_shape[1:]))
    return LowRankDelta(widen(delta.up), delta.down, delta.kernel)
