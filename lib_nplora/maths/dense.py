"""A delta weight kept whole, for want of factors."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from .lowrank import LowRankDelta

EXACT = 1e-13
"""Share of the energy that may be lost where factors stand for the whole: rounding noise of float32."""

HALVES = (torch.float16, torch.bfloat16)


@dataclass(frozen=True, eq=False)
class DenseDelta:
    """delta, scale included.

    matrix
        (out, in), float32, or half precision: see `stored`. For a convolution `in` is in_channels * kernel height *
        kernel width; for a vector it is 1.
    layer_shape
        Shape of the layer's own weight: (out, in), (out, in_channels, kernel height, kernel width), or (out,) for what
        has no input side, a norm or a bias.
    """

    matrix: Tensor
    layer_shape: tuple[int, ...]

    @classmethod
    def of(cls, weight: Tensor) -> DenseDelta:
        """Build from a tensor of the layer's own shape and any float dtype."""
        weight = weight.detach().to("cpu", torch.float32)
        return cls(weight.reshape(weight.shape[0], -1).contiguous(), tuple(weight.shape))

    @property
    def shape(self) -> tuple[int, int]:
        """(out, in) of the matrix."""
        return self.matrix.shape[0], self.matrix.shape[1]

    @property
    def kernel(self) -> tuple[int, ...]:
        """Shape of the convolution's kernel, () for a linear layer."""
        return self.layer_shape[2:]

    @property
    def has_input_side(self) -> bool:
        return len(self.layer_shape) > 1

    @property
    def nbytes(self) -> int:
        return self.matrix.nbytes

    @property
    def is_finite(self) -> bool:
        return math.isfinite(self.energy())

    def tensor(self) -> Tensor:
        """The delta in the layer's own shape, as files hold it."""
        return self.matrix.reshape(self.layer_shape)

    def stored(self, dtype: torch.dtype) -> DenseDelta:
        """As it is kept for a weight of this number format: in half precision if that is one, to which the sum of both
        is rounded anyway.
        """
        return DenseDelta(self.matrix.to(dtype), self.layer_shape) if dtype in HALVES else self

    def scaled(self, weight: float) -> DenseDelta:
        """weight * delta."""
        return self if weight == 1 else DenseDelta(self.matrix * weight, self.layer_shape)

    def on_input(self, change: Callable[[Tensor], Tensor]) -> DenseDelta:
        """The delta with its input side, rows of length `in`, changed by a linear map that keeps their length."""
        return DenseDelta(change(self.matrix), self.layer_shape)

    def on_output(self, change: Callable[[Tensor], Tensor]) -> DenseDelta:
        """The delta with its output side, columns as rows of length `out`, changed by such a map."""
        return DenseDelta(change(self.matrix.T).T, self.layer_shape)

    def transposed(self) -> DenseDelta:
        """delta^T, (in, out)."""
        return DenseDelta(self.matrix.T, self.matrix.T.shape)

    def inside(self, basis: Tensor) -> LowRankDelta:
        """delta V V^T as factors: see LowRankDelta.inside."""
        return LowRankDelta(self.matrix @ basis, basis.T, self.kernel)

    def rows(self, start: int, stop: int) -> DenseDelta:
        """The delta of these output rows alone."""
        return DenseDelta(self.matrix[start:stop], (stop - start, *self.layer_shape[1:]))

    def write_rows(self, start: int, every: int, out: Tensor) -> None:
        """See LowRankDelta.write_rows."""
        out.copy_(self.matrix[start::every])

    def dense(self) -> Tensor:
        """(out, in), in the number format of `matrix`."""
        return self.matrix

    def energy(self) -> float:
        """Squared Frobenius norm."""
        return self._energy

    @cached_property
    def _energy(self) -> float:
        """From norms of rows in float32: right to 1e-7, in a tenth of the time of float64."""
        rows = torch.linalg.vector_norm(self.matrix, dim=1, dtype=torch.float32)
        return float(rows.double().square().sum())

    def factored(self) -> LowRankDelta | None:
        """The same delta as factors, if there are some of at most a quarter of its full rank, else None.

        A randomised range finder (Halko, Martinsson, Tropp, arXiv 0909.4061, Alg. 4.1) of growing size makes them. What
        it misses is measured, and is at most EXACT of the energy. A sketch that catches far less than its share of a
        rank that is small enough ends the search; where a sample shows the rank, it is not begun.
        """
        limit = min(self.shape) // 4
        if not self.has_input_side or not self.energy() > 0 or not limit or self._is_beyond(limit):
            return None
        matrix = self.matrix.double()
        energy = float(matrix.square().sum())
        generator = torch.Generator().manual_seed(0)
        size = min(16, limit)
        while size:
            sketch = torch.randn(self.shape[1], size, generator=generator, dtype=torch.float64)
            q = torch.linalg.qr(matrix @ sketch).Q
            core = q.T @ matrix
            caught = float(core.square().sum()) / energy
            if 1 - caught <= EXACT:
                return self._cut(q, core, energy)
            size = min(2 * size, limit) if size < limit and caught > size / limit / 2 else 0
        return None

    def _is_beyond(self, rank: int) -> bool:
        """Whether a few rows and columns show that no factors of this rank hold all but EXACT of the energy.

        The singular values of a part of a matrix are at most its own (Horn, Johnson, Matrix Analysis, Cor. 3.1.3). All
        of them are above a value if their squares less its square make a positive definite matrix.
        """
        generator = torch.Generator().manual_seed(0)
        rows, columns = (torch.randperm(length, generator=generator) for length in self.shape)
        part = self.matrix[rows[: rank + 1, None], columns[: 2 * rank + 2]].double()
        above = part @ part.T - EXACT * self.energy() * torch.eye(len(part), dtype=torch.float64)
        return bool(torch.linalg.cholesky_ex(above).info == 0)

    def _cut(self, q: Tensor, core: Tensor, energy: float) -> LowRankDelta:
        u, s, vh = torch.linalg.svd(core, full_matrices=False)
        kept = (s.flip(0).square().cumsum(0).flip(0) > EXACT * energy).sum()
        root = s[:kept].sqrt()
        up, down = (q @ u[:, :kept]) * root, root[:, None] * vh[:kept]
        return LowRankDelta(up.float().contiguous(), down.float().contiguous(), self.kernel)
