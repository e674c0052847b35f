"""Deltas without small factors brought into a form that a LoRA file can hold."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch

from ..errors import FileError, Remedy, RequestError
from ..layers.key import ModuleKey
from ..maths.delta import Delta
from ..maths.dense import DenseDelta
from ..maths.lowrank import LowRankDelta
from ..maths.rank_rule import RankRule
from ..maths.subspace import right_svd, truncated

HIGHEST_RANK = 10000
"""The highest rank that a file may be cut to."""

EXACT = "exact"
"""How the size is called that cuts nothing."""

NARROW = 40
"""Inputs or outputs of a layer whose full rank is small enough, as that of the first and the last of a UNet is."""


@dataclass(frozen=True)
class Loss:
    """What a layer lost when its rank was lowered.

    before
        Its rank, None if it had no factors.
    energy, lost
        Those of the delta, and of what was cut off (squared Frobenius norm).
    """

    before: int | None
    after: int
    energy: float
    lost: float

    @property
    def share(self) -> float:
        """0 to 1."""
        return self.lost / self.energy if self.energy else 0.0


@dataclass(frozen=True)
class Sizing:
    """How large layers may be.

    size
        How many of a layer's directions are kept: at most a number, or the fewest that hold a share of its energy.
        None for all, exactly.
    full
        Whether a layer without factors may be stored whole.
    """

    size: RankRule | None = None
    full: bool = False

    def fit(self, key: ModuleKey, delta: Delta) -> tuple[Delta, Loss | None]:
        """The delta as factors, unless it is to be stored whole or has no input side; and what it lost, if anything.

        Raises FileError for one that has no small factors and may not be stored whole either.
        """
        if not delta.has_input_side:
            return delta, None
        if isinstance(delta, DenseDelta) and not delta.matrix.any():
            return _nothing(delta), None
        if self.size is not None:
            return _cut(delta, self.size)
        if isinstance(delta, LowRankDelta) or self.full:
            return delta, None
        factors = _all_factors(delta) if min(delta.shape) <= NARROW else delta.factored()
        if factors is None:
            raise FileError(
                f"the fused layer {key} has no small rank",
                Remedy(
                    "add --rank N to store the nearest of rank N, or --full to store such layers whole",
                    "give a rank N to store the nearest of rank N, or full=true to store such layers whole",
                    "choose a size such as 32",
                ),
            )
        return factors, None


def lost(losses: Iterable[Loss]) -> float:
    """Share of the energy of all these layers that was lost, 0 to 1."""
    found = list(losses)
    energy = sum(loss.energy for loss in found)
    return sum(loss.lost for loss in found) / energy if energy else 0.0


def parse_size(text: str) -> RankRule | None:
    """Read `exact`, a highest rank such as `32`, or a share of the energy such as `99%`. Raises RequestError."""
    text = text.strip()
    if text.lower() in ("", EXACT):
        return None
    try:
        size = RankRule.parse(text)
    except RequestError:
        size = RankRule()
    if size == RankRule() or (size.count or 1) > HIGHEST_RANK:
        raise RequestError(
            f"size={text} is not '{EXACT}', a highest rank from 1 to {HIGHEST_RANK}, or a share of the energy such as "
            "99%"
        )
    return size


def _cut(delta: Delta, size: RankRule) -> tuple[LowRankDelta, Loss | None]:
    """The nearest delta of that size, and what was lost; None for one that is no larger as it is."""
    cut = truncated(delta, size.count) if size.count else delta.inside(right_svd([delta]).basis(size))
    if isinstance(delta, LowRankDelta) and cut.rank >= delta.rank:
        return delta, None
    if cut.rank == 0:
        cut = _nothing(delta)
    energy = delta.energy()
    before = delta.rank if isinstance(delta, LowRankDelta) else None
    # The cut is a projection of the delta, so energies add up; LOST of a decomposition counts as lost, too.
    return cut, Loss(before, cut.rank, energy, max(energy - cut.energy(), 0.0))


def _nothing(delta: Delta) -> LowRankDelta:
    """Factors of the delta's shape that change nothing: no file can hold a rank of 0."""
    return LowRankDelta(torch.zeros(delta.shape[0], 1), torch.zeros(1, delta.shape[1]), delta.kernel)


def _all_factors(delta: DenseDelta) -> LowRankDelta:
    """Factors of full rank, exact."""
    u, s, vh = torch.linalg.svd(delta.matrix.double(), full_matrices=False)
    root = s.sqrt()
    return LowRankDelta((u * root).float(), (root[:, None] * vh).float(), delta.kernel)
