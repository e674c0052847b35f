"""Principal directions of a delta weight on its input side, and the projection off them.

NP-LoRA, arXiv 2511.11051: Eq. 4 (the decomposition), Eq. 10 and 28 (the projector, on the right), Eq. 25-26 (the soft
one).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .lowrank import LowRankDelta
from .rank_rule import RankRule


@dataclass(frozen=True, eq=False)
class RightSvd:
    """Singular values and right singular vectors of a delta weight, not cut yet.

    s
        (rank,) float32, largest first.
    vh
        (rank, in) float32, orthonormal rows.
    """

    s: Tensor
    vh: Tensor

    @property
    def nbytes(self) -> int:
        return self.s.nbytes + self.vh.nbytes

    def basis(self, rule: RankRule) -> Tensor:
        """V: the principal directions as columns, (in, k) float32."""
        return self.vh[: rule.rank(self.s.tolist())].T


def right_svd(deltas: Sequence[LowRankDelta]) -> RightSvd:
    """Decompose `deltas`, stacked on top of each other ([dW_1; dW_2; ...]), from their factors.

    QR of all `down`, QR of each `up`, SVD of the small core: O((in + out) r^2), the dense matrix is never built. The
    paper's plain QR of down^T (Eq. 30) gives the same subspace only if `up` has full column rank, and no order.
    Works in float64 inside: directions 2^20 times weaker than the strongest are still told from noise.
    """
    q, r_down = torch.linalg.qr(torch.cat([delta.down for delta in deltas]).double().T)
    r_up: Tensor = torch.block_diag(  # type: ignore[no-untyped-call]
        *(torch.linalg.qr(delta.up.double(), mode="r").R for delta in deltas)
    )
    _, s, vh = torch.linalg.svd(r_up @ r_down.T, full_matrices=False)
    return RightSvd(s.float(), (vh @ q.T).float())


def projection_strength(mu: float) -> float:
    """beta = mu / (1 + mu) of Eq. 25: 0 projects nothing, 1 (mu = infinity) projects all."""
    return 1.0 if mu == float("inf") else mu / (1 + mu)


def project_out(delta: LowRankDelta, basis: Tensor, beta: float) -> LowRankDelta:
    """delta (I - beta V V^T), Eq. 26 on the input side. Only `down` changes.

    basis
        V, (in, k) float32, orthonormal columns.

    beta = 0 returns the delta itself; with beta = 1 the result times V is 0, and projecting again changes nothing.
    """
    if beta == 0:
        return delta
    return delta.with_down(delta.down - beta * (delta.down @ basis) @ basis.T)


def overlap(delta: LowRankDelta, basis: Tensor) -> float:
    """The share of the delta's energy inside the basis, |delta V|^2 / |delta|^2, between 0 and 1."""
    energy = delta.energy()
    return delta.with_down(delta.down @ basis).energy() / energy if energy else 0.0
