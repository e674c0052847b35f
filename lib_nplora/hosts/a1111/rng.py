"""The host's modules are torch layers, which draw random numbers at birth."""

from __future__ import annotations

from contextlib import AbstractContextManager

import torch


def picture_rng_kept() -> AbstractContextManager[None]:
    """While modules are made, the random numbers of the picture stay as they were."""
    return torch.random.fork_rng(devices=[])
