"""Matrices: what factors mean, how far two are apart, and the nearest of a rank."""

from __future__ import annotations

import numpy as np
import torch

Factors = tuple[np.ndarray, np.ndarray]
"""up (out, rank) and down (rank, in), float64."""


def dense(up: torch.Tensor, down: torch.Tensor, mid: torch.Tensor | None = None, scale: float = 1.0) -> np.ndarray:
    """The delta weight of factors as a file holds them."""
    up64 = up.double().numpy().reshape(up.shape[0], -1)
    down64 = down.double().numpy()
    if mid is None:
        return scale * np.einsum("or,r...->o...", up64, down64).reshape(up.shape[0], -1)
    # A Tucker convolution is `down` (1 x 1), then `mid` (kh x kw), then `up` (1 x 1).
    down64 = down64.reshape(down.shape[0], -1)
    return scale * np.einsum("on,nmhw,mi->oihw", up64, mid.double().numpy(), down64).reshape(up.shape[0], -1)


def added(*updates: Factors) -> Factors:
    """The sum of updates of one layer."""
    return np.concatenate([up for up, _ in updates], axis=1), np.concatenate([down for _, down in updates])


def error(actual: torch.Tensor | np.ndarray, expected: np.ndarray) -> float:
    """Relative Frobenius distance."""
    distance = float(np.linalg.norm(np.asarray(actual, dtype=np.float64) - expected))
    norm = float(np.linalg.norm(expected))
    return distance / norm if norm else distance


def truncated(matrix: np.ndarray, rank: int) -> tuple[np.ndarray, float]:
    """The nearest matrix of that rank, by Eckart and Young, and the energy that it lacks."""
    u, s, vh = np.linalg.svd(matrix, full_matrices=False)
    return (u[:, :rank] * s[:rank]) @ vh[:rank], float((s[rank:] ** 2).sum())
