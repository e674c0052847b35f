"""Factors of products of factored matrices, without the matrices.

A matrix X is held as its factors (up, down), X = up @ down, with up (out, rank) and down (rank, in). Both products have
rank r1 r2.
"""

from __future__ import annotations

import torch
from torch import Tensor

Factors = tuple[Tensor, Tensor]


def entrywise(one: Factors, other: Factors) -> Factors:
    """X * Y, entry by entry: row o of up is kron(up1[o], up2[o]), column i of down is kron(down1[:, i], down2[:, i]).

    Row-wise and column-wise Khatri-Rao products: Kolda and Bader, SIAM Review 51 (2009), section 2.6.
    """
    up = torch.einsum("oi,oj->oij", one[0], other[0]).flatten(1)
    return up, torch.einsum("in,jn->ijn", one[1], other[1]).flatten(0, 1)


def kronecker(one: Factors, other: Factors) -> Factors:
    """kron(X, Y) = kron(up1, up2) kron(down1, down2)."""
    return _kron(one[0], other[0]), _kron(one[1], other[1])


def _kron(one: Tensor, other: Tensor) -> Tensor:
    """(a, b) x (c, d) -> (a c, b d). `torch.kron` refuses tensors without values that are not contiguous."""
    product = torch.einsum("ab,cd->acbd", one, other)
    return product.reshape(one.shape[0] * other.shape[0], one.shape[1] * other.shape[1])


def least(up: Tensor, down: Tensor) -> Factors:
    """Factors of up @ down of the least rank that shapes tell: they themselves, or those of the whole product."""
    return (up, down) if up.shape[1] < min(up.shape[0], down.shape[1]) else trivial(up @ down)


def trivial(matrix: Tensor) -> Factors:
    """The matrix and the identity, which stands on the side that gives the lower rank; on the right if either does."""
    one = torch.eye(min(matrix.shape), dtype=matrix.dtype, device=matrix.device)
    return (matrix, one) if matrix.shape[1] <= matrix.shape[0] else (one, matrix)
