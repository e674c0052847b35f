"""TIES and DARE, for one layer."""

from __future__ import annotations

import numpy as np
import torch


def ties(content: np.ndarray, style: np.ndarray, density: float) -> np.ndarray:
    """TIES, arXiv 2306.01708, Alg. 1; NaN where rounding to float32 decides."""
    trimmed, unsure = [], np.zeros(content.shape, dtype=bool)
    for delta in (content, style):
        magnitudes = np.abs(delta)
        smallest = np.sort(magnitudes, axis=None)[-max(int(density * delta.size), 1)]
        trimmed.append(np.where(magnitudes >= smallest, delta, 0.0))
        unsure |= np.abs(magnitudes - smallest) < 1e-5 * smallest
    total = trimmed[0] + trimmed[1]
    unsure |= (np.abs(total) < 1e-5 * np.abs(trimmed[0])) & (trimmed[1] != 0)
    agreeing = [np.where(np.sign(delta) == np.sign(total), delta, 0.0) for delta in trimmed]
    count = sum((delta != 0).astype(int) for delta in agreeing)
    return np.where(unsure, np.nan, sum(agreeing) / np.maximum(count, 1))


def mask(shape: tuple[int, ...], density: float, seed: int, place: int) -> np.ndarray:
    """What DARE multiplies a delta by, arXiv 2311.03099: 0, or 1 / density where an element is kept.

    A picture can be made again from its seed, so the draw is part of what the method means: an element is kept where
    torch's uniform numbers, seeded with 1,000,003 times the seed plus the place, are below the density. The places of
    contents are even, those of styles odd.
    """
    generator = torch.Generator().manual_seed(seed * 1_000_003 + place)
    return (torch.rand(shape, generator=generator).double().numpy() < np.float32(density)) / density
