"""Principal directions of a delta weight on its input side, and the projection off them.

NP-LoRA, arXiv 2511.11051: Eq. 4 (the decomposition), Eq. 10 and 28 (the projector, on the right), Eq. 25-26 (the soft
one).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .delta import Delta
from .lowrank import LowRankDelta, column_products, pays, row_products
from .rank_rule import NUMERICAL_RANK, RankRule
from .remade import Remade

LOST = 1e-6
"""Share of its energy that the decomposition of a delta without factors leaves out."""


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


def right_svd(deltas: Sequence[Delta]) -> RightSvd:
    """Decompose `deltas`, stacked on top of each other ([dW_1; dW_2; ...]).

    From factors: all of it, above numerical rank. If one of them has none: truncated, the fewest directions that hold
    all but LOST of the energy.
    """
    factors = [delta for delta in deltas if isinstance(delta, LowRankDelta)]
    return _from_factors(factors) if len(factors) == len(deltas) else _from_matrices(deltas)


def _from_factors(deltas: Sequence[LowRankDelta]) -> RightSvd:
    """up = Q R_up and down^T = P R_down give dW = Q (R_up R_down^T) P^T.

    An SVD of the small core U S W^T has the singular values, and V^T = S^-1 U^T R_up down. O((in + out) r^2); neither
    the dense matrix nor Q and P are built. The paper's plain QR of down^T (Eq. 30) gives the same subspace only if `up`
    has full column rank, and no order.
    Works in float64 inside: directions 2^20 times weaker than the strongest are still told from noise.
    """
    down = deltas[0].down if len(deltas) == 1 else torch.cat([delta.down for delta in deltas])
    ups = [_triangle(delta.up, column_products(delta.up)) for delta in deltas]
    r_up: Tensor = torch.block_diag(*ups)  # type: ignore[no-untyped-call]
    u, s, _ = torch.linalg.svd(r_up @ _triangle(down.T, row_products(down)).T, full_matrices=False)
    rank = RankRule().rank(s.tolist())
    u, s = u[:, :rank], s[:rank]
    return RightSvd(s.float(), ((u / s).T @ r_up @ down.double()).float())


def _from_matrices(deltas: Sequence[Delta]) -> RightSvd:
    """Decompose by the eigenvectors of the smaller Gram matrix, in float64: squaring loses nothing that LOST keeps."""
    matrix = torch.cat([delta.dense() for delta in deltas]).double()
    wide = matrix.shape[0] < matrix.shape[1]
    eigenvalues, vectors = torch.linalg.eigh(matrix @ matrix.T if wide else matrix.T @ matrix)
    energies, vectors = eigenvalues.flip(0).clamp(min=0), vectors.flip(1)
    tail = energies.flip(0).cumsum(0).flip(0)
    rank = int(((tail > LOST * tail[0]) & (energies > NUMERICAL_RANK**2 * energies[0])).sum())
    s, vectors = energies[:rank].sqrt(), vectors[:, :rank]
    vh = (vectors / s).T @ matrix if wide else vectors.T
    return RightSvd(s.float(), vh.float().contiguous())


def _triangle(columns: Tensor, products: Tensor) -> Tensor:
    """R of the QR decomposition of `columns` (n, r), up to signs: R^T R = columns^T columns = `products`.

    Cholesky makes it, at about a quarter of the time, where the columns are independent enough to be squared in
    float64.
    """
    lower: Tensor
    lower, failed = torch.linalg.cholesky_ex(products)
    pivots = lower.diagonal()
    if not failed and pivots.min() > pivots.max() * 2**-12:
        return lower.T
    r: Tensor = torch.linalg.qr(columns.double(), mode="r").R
    return r


def projection_strength(mu: float) -> float:
    """beta = mu / (1 + mu) of Eq. 25: 0 projects nothing, 1 (mu = infinity) projects all."""
    return 1.0 if mu == float("inf") else mu / (1 + mu)


def project_out(delta: Delta, basis: Tensor, beta: float) -> Delta:
    """delta (I - beta V V^T), Eq. 26 on the input side. Of factors, only `down` changes. What is not kept still is not.

    basis
        V, (in, k) float32, orthonormal columns.

    beta = 0 returns the delta itself; with beta = 1 the result times V is 0, and projecting again changes nothing.
    """
    if beta == 0:
        return delta
    if isinstance(delta, Remade) and pays(basis.shape[1], delta.layer_shape):
        return delta.plus(delta.inside(basis).scaled(-beta))
    return delta.on_input(lambda rows: rows - beta * (rows @ basis) @ basis.T)


def project_out_output(delta: Delta, basis: Tensor, beta: float) -> Delta:
    """(I - beta U U^T) delta: `project_out` on the output side. Of factors, only `up` changes.

    basis
        U, (out, k) float32, orthonormal columns.
    """
    if beta == 0:
        return delta
    return delta.on_output(lambda columns: columns - beta * (columns @ basis) @ basis.T)


def overlap(delta: Delta, basis: Tensor) -> float:
    """The share of the delta's energy inside the basis, |delta V|^2 / |delta|^2, between 0 and 1."""
    energy = delta.energy()
    return min(delta.inside(basis).energy() / energy, 1.0) if energy else 0.0


def truncated(delta: Delta, rank: int) -> LowRankDelta:
    """The nearest delta of at most this rank (Eckart and Young, 1936)."""
    if isinstance(delta, LowRankDelta) and delta.rank <= rank:
        return delta
    return delta.inside(right_svd([delta]).vh[:rank].T)
