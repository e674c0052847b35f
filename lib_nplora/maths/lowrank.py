"""A delta weight kept as its two factors."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, lru_cache

import torch
from torch import Tensor


@contextmanager
def exact_math() -> Iterator[None]:
    """Full float32: no autocast, no gradients, and no inference tensors, which could not be reused later.

    Both hosts activate networks under autocast, which would turn every product into half precision.
    """
    with (
        torch.inference_mode(False),
        torch.no_grad(),
        torch.autocast("cpu", enabled=False),
        torch.autocast("cuda", enabled=False),
    ):
        yield


@lru_cache(maxsize=8)
def column_products(up: Tensor) -> Tensor:
    """up^T up of a factor (out, rank): (rank, rank) float64.

    The energy and the decomposition of a delta ask for the same ones, and so does the energy of its projection: those
    of the layer at hand are kept.
    """
    wide = up.double()
    return wide.T @ wide


@lru_cache(maxsize=8)
def row_products(down: Tensor) -> Tensor:
    """down down^T of a factor (rank, in): (rank, rank) float64. See column_products."""
    wide = down.double()
    return wide @ wide.T


@dataclass(frozen=True, eq=False)
class LowRankDelta:
    """delta = up @ down, scale included.

    up
        (out, rank), float32.
    down
        (rank, in), float32. For a convolution `in` is in_channels * kernel height * kernel width.
    kernel
        Shape of the convolution's kernel, () for a linear layer.
    """

    up: Tensor
    down: Tensor
    kernel: tuple[int, ...] = ()

    @classmethod
    def from_factors(cls, up: Tensor, down: Tensor, mid: Tensor | None = None, scale: float = 1.0) -> LowRankDelta:
        """Build from factors as files hold them, of any float dtype: 2-D, or 4-D for a convolution.

        `mid` (rank, rank, kh, kw) is the core of a Tucker decomposition: it is contracted into `down`.
        `scale` (alpha / rank) is folded into `up`. Raises ValueError if the shapes do not chain.
        """
        up = up.detach().to("cpu", torch.float32).flatten(1) * scale
        down = down.detach().to("cpu", torch.float32)
        kernel = tuple(down.shape[2:])
        if mid is not None:
            mid = mid.detach().to("cpu", torch.float32)
            kernel = tuple(mid.shape[2:])
            down = torch.einsum("nm...,mj->nj...", mid, down.flatten(1))
        down = down.flatten(1)
        if up.shape[1] != down.shape[0]:
            raise ValueError(f"up {tuple(up.shape)} and down {tuple(down.shape)} have different ranks")
        return cls(up.contiguous(), down.contiguous(), kernel)

    @property
    def rank(self) -> int:
        return self.down.shape[0]

    @property
    def shape(self) -> tuple[int, int]:
        """(out, in) of the matrix."""
        return self.up.shape[0], self.down.shape[1]

    @property
    def nbytes(self) -> int:
        return self.up.nbytes + self.down.nbytes

    @property
    def has_input_side(self) -> bool:
        return True

    @property
    def is_finite(self) -> bool:
        return bool(self.up.isfinite().all() and self.down.isfinite().all())

    def factors(self) -> tuple[Tensor, Tensor]:
        """(up, down) as files hold them, with scale 1: 2-D, or 4-D for a convolution. See from_factors."""
        ones = (1,) * len(self.kernel)
        return self.up.reshape(*self.up.shape, *ones), self.down.reshape(self.rank, -1, *self.kernel)

    def scaled(self, weight: float) -> LowRankDelta:
        """weight * delta."""
        return self if weight == 1 else LowRankDelta(self.up * weight, self.down, self.kernel)

    def on_input(self, change: Callable[[Tensor], Tensor]) -> LowRankDelta:
        """The delta with its input side, rows of length `in`, changed by a linear map that keeps their length."""
        return LowRankDelta(self.up, change(self.down), self.kernel)

    def on_output(self, change: Callable[[Tensor], Tensor]) -> LowRankDelta:
        """The delta with its output side, columns as rows of length `out`, changed by such a map."""
        return LowRankDelta(change(self.up.T).T, self.down, self.kernel)

    def transposed(self) -> LowRankDelta:
        """delta^T, (in, out)."""
        return LowRankDelta(self.down.T, self.up.T)

    def inside(self, basis: Tensor) -> LowRankDelta:
        """delta V V^T as factors: up is delta V, (out, k), down is V^T.

        basis
            V, (in, k) float32, orthonormal columns.
        """
        return LowRankDelta(self.up @ (self.down @ basis), basis.T, self.kernel)

    def rows(self, start: int, stop: int) -> LowRankDelta:
        """The delta of these output rows alone."""
        return LowRankDelta(self.up[start:stop], self.down, self.kernel)

    def write_rows(self, start: int, every: int, out: Tensor) -> None:
        """Put the rows start, start + every, ... of the matrix into `out`, which has as many and as long ones."""
        torch.mm(self.up[start::every], self.down, out=out)

    def dense(self) -> Tensor:
        """up @ down, (out, in) float32."""
        return self.up @ self.down

    def energy(self) -> float:
        """Squared Frobenius norm."""
        return self._energy

    @cached_property
    def _energy(self) -> float:
        """From the Gram matrices of the factors: tr(up^T up  down down^T)."""
        return max(float((column_products(self.up) * row_products(self.down)).sum()), 0.0)

    def balanced(self) -> LowRankDelta:
        """The same delta with |up[:, i]| within a factor 2 of |down[i]| for all i, so that neither underflows in fp16.

        Only powers of two move between them: what 16 bits hold they still hold, the tiniest numbers aside.
        """
        up_norm, down_norm = self.up.norm(dim=0), self.down.norm(dim=1)
        used = (up_norm > 0) & (down_norm > 0)
        ratio = torch.where(used, down_norm / up_norm, 1.0).sqrt().log2().round().exp2()
        return LowRankDelta(self.up * ratio, self.down / ratio[:, None], self.kernel)


def pays(rank: int, layer_shape: Sequence[int]) -> bool:
    """Whether the sum of two deltas of this rank, as a fusion is, takes no more room as factors than as a matrix."""
    out, in_ = layer_shape[0], math.prod(layer_shape[1:])
    return 2 * rank * (out + in_) <= out * in_


def concat(deltas: Sequence[LowRankDelta]) -> LowRankDelta:
    """The sum of `deltas` (at least one, equal shapes), of rank equal to the sum of their ranks."""
    if len(deltas) == 1:
        return deltas[0]
    kernel = next((delta.kernel for delta in deltas if delta.kernel), ())
    return LowRankDelta(
        torch.cat([delta.up for delta in deltas], dim=1), torch.cat([delta.down for delta in deltas]), kernel
    )
