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
        (rank,) float32, largest first. Only what is above numerical rank: none of an all-zero delta.
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

    up = Q R_up and down^T = P R_down give dW = Q (R_up R_down^T) P^T: an SVD of the small core U S W^T has the singular
    values, and V^T = S^-1 U^T R_up down. O((in + out) r^2); neither the dense matrix nor Q and P are built. The paper's
    plain QR of down^T (Eq. 30) gives the same subspace only if `up` has full column rank, and no order.
    Works in float64 inside: directions 2^20 times weaker than the strongest are still told from noise.
    """
    down = torch.cat([delta.down for delta in deltas]).double()
    r_up: Tensor = torch.block_diag(*(_triangle(delta.up.double()) for delta in deltas))  # type: ignore[no-untyped-call]
    u, s, _ = torch.linalg.svd(r_up @ _triangle(down.T).T, full_matrices=False)
    rank = RankRule().rank(s.tolist())
    u, s = u[:, :rank], s[:rank]
    return RightSvd(s.float(), ((u / s).T @ r_up @ down).float())


def _triangle(columns: Tensor) -> Tensor:
    """R of the QR decomposition of `columns` (n, r), up to signs: R^T R = columns^T columns.

    By Cholesky, at about a quarter of the time, where the columns are independent enough to be squared in float64.
    """
    lower: Tensor
    lower, failed = torch.linalg.cholesky_ex(columns.T @ columns)
    pivots = lower.diagonal()
    if not failed and pivots.min() > pivots.max() * 2**-12:
        return lower.T
    r: Tensor = torch.linalg.qr(columns, mode="r").R
    return r


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
    return min(delta.with_down(delta.down @ basis).energy() / energy, 1.0) if energy else 0.0
