"""A delta weight without factors that is not kept but made anew each time that it is needed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .dense import DenseDelta
from .lowrank import LowRankDelta, exact_math


@dataclass(frozen=True, eq=False)
class Making:
    """How a host makes an update of a layer.

    update
        Device, or None for the layer's own -> the update there, in the layer's own shape and any float dtype.
    nbytes
        Bytes of what it is made of.
    """

    update: Callable[[torch.device | None], Tensor]
    nbytes: int


class Remade(DenseDelta):
    """delta = the sum of weight * update and of products.

    As long as it is the subject of calculations it holds its matrix. What `stored` gives never does.

    updates
        (how one is made, its weight), at least one.
    factors
        The products that are added.
    holds
        Whether its matrix is held once it was asked for.
    """

    def __init__(
        self,
        layer_shape: tuple[int, ...],
        updates: Sequence[tuple[Making, float]],
        factors: Sequence[LowRankDelta] = (),
        holds: bool = True,
    ) -> None:
        self.__dict__.update(layer_shape=layer_shape, updates=updates, factors=factors, holds=holds)

    updates: Sequence[tuple[Making, float]]
    factors: Sequence[LowRankDelta]
    holds: bool

    @property
    def matrix(self) -> Tensor:
        """See DenseDelta."""
        if "matrix" in vars(self):
            held: Tensor = vars(self)["matrix"]
            return held
        made = DenseDelta.of(self.tensor_on(torch.device("cpu"))).matrix
        if self.holds:
            self._holding(made)
        return made

    @property
    def shape(self) -> tuple[int, int]:
        """(out, in) of the matrix."""
        return self.layer_shape[0], torch.Size(self.layer_shape[1:]).numel()

    @property
    def nbytes(self) -> int:
        return sum(how.nbytes for how, _ in self.updates) + sum(factors.nbytes for factors in self.factors)

    def tensor_on(self, device: torch.device | None) -> Tensor:
        """The delta in the layer's own shape, float32, on a device, or on the layer's own."""
        with exact_math():
            made = sum(how.update(device) * weight for how, weight in self.updates)
            assert isinstance(made, Tensor)
            matrix = made.reshape(self.shape)
            for factors in self.factors:
                matrix.addmm_(factors.up.to(matrix), factors.down.to(matrix))
            return matrix.float().reshape(self.layer_shape)

    def stored(self, dtype: torch.dtype) -> Remade:
        """As it is kept: without its matrix."""
        return Remade(self.layer_shape, self.updates, self.factors, holds=False)

    def kept(self, dtype: torch.dtype) -> DenseDelta:
        """As a matrix after all, as it is kept for a weight of this number format."""
        return DenseDelta(self.matrix, self.layer_shape).stored(dtype)

    def scaled(self, weight: float) -> Remade:
        """weight * delta."""
        if weight == 1:
            return self
        updates = [(how, weight * own) for how, own in self.updates]
        made = Remade(self.layer_shape, updates, [factors.scaled(weight) for factors in self.factors])
        return made._holding(self.matrix * weight)

    def plus(self, factors: LowRankDelta) -> Remade:
        """The sum with a product, which holds its matrix."""
        made = Remade(self.layer_shape, self.updates, [*self.factors, factors])
        return made._holding(self.matrix.addmm(factors.up, factors.down))

    def _holding(self, matrix: Tensor) -> Remade:
        """Itself, with its matrix, so that the host need not make it."""
        self.__dict__["matrix"] = matrix
        return self

    @classmethod
    def total(cls, made: Sequence[Remade], factors: Sequence[LowRankDelta]) -> Remade:
        """The sum of these (at least one, equal shapes)."""
        updates = [update for one in made for update in one.updates]
        return cls(made[0].layer_shape, updates, [*(added for one in made for added in one.factors), *factors])
