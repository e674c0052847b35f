"""The random numbers of the picture, which the host's modules would use up: they are torch layers."""

from __future__ import annotations

from contextlib import AbstractContextManager

import torch


def picture_rng_kept() -> AbstractContextManager[None]:
    """While modules are made, the random numbers of the picture stay as they were."""
    return torch.random.fork_rng(devices=[])
