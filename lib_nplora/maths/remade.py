"""A delta weight without factors that is not kept but made anew each time that it is needed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, reduce

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
    energy
        Squared Frobenius norm of the update.
    """

    update: Callable[[torch.device | None], Tensor]
    nbytes: int
    energy: float


class Remade(DenseDelta):
    """delta = the sum of weight * update and of products.

    As long as it is the subject of calculations it holds its matrix, once that was asked for. What `stored` gives never
    does.

    updates
        (how one is made, its weight), at least one.
    factors
        The products that are added.
    known
        Makes its matrix of others that may be held already, in place of the host.
    holds
        Whether its matrix is held.
    """

    def __init__(
        self,
        layer_shape: tuple[int, ...],
        updates: Sequence[tuple[Making, float]],
        factors: Sequence[LowRankDelta] = (),
        known: Callable[[], Tensor] | None = None,
        holds: bool = True,
    ) -> None:
        self.__dict__.update(layer_shape=layer_shape, updates=updates, factors=factors, known=known, holds=holds)

    updates: Sequence[tuple[Making, float]]
    factors: Sequence[LowRankDelta]
    known: Callable[[], Tensor] | None
    holds: bool

    @property
    def matrix(self) -> Tensor:
        """See DenseDelta."""
        if "matrix" in vars(self):
            held: Tensor = vars(self)["matrix"]
            return held
        made = self.known() if self.known else DenseDelta.of(self.tensor_on(torch.device("cpu"))).matrix
        if self.holds:
            self.__dict__["matrix"] = made
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
            made = [how.update(device) * weight if weight != 1 else how.update(device) for how, weight in self.updates]
            matrix = reduce(torch.add, made).reshape(self.shape)
            for factors in self.factors:
                matrix = matrix.addmm(factors.up.to(matrix), factors.down.to(matrix))
            return matrix.float().reshape(self.layer_shape)

    @cached_property
    def _energy(self) -> float:
        if len(self.updates) == 1 and not self.factors:
            how, weight = self.updates[0]
            return weight**2 * how.energy
        return super()._energy

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
        factors = [factors.scaled(weight) for factors in self.factors]
        return Remade(self.layer_shape, updates, factors, lambda: self.matrix * weight)

    def plus(self, factors: LowRankDelta) -> Remade:
        """The sum with a product."""
        both = [*self.factors, factors]
        return Remade(self.layer_shape, self.updates, both, lambda: self.matrix.addmm(factors.up, factors.down))

    @classmethod
    def total(cls, made: Sequence[Remade], factors: Sequence[LowRankDelta]) -> Remade:
        """The sum of these (at least one, equal shapes)."""
        updates = [update for one in made for update in one.updates]
        return cls(made[0].layer_shape, updates, [*(added for one in made for added in one.factors), *factors])
