"""Hands a Forge what it calculates itself, at the moment when it merges it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ...maths.remade import Remade


class Later:
    """The first weight of a nested patch, `[Later(delta)]`, which is made when the host takes it.

    Forge and Forge Classic do so by `clone`, Forge Neo and reForge as the pair (tensor, function of it).
    """

    def __init__(self, delta: Remade) -> None:
        self._delta = delta

    def clone(self) -> Tensor:
        """The update on the layer's own device, float32."""
        return self._delta.tensor_on(None)

    def __getitem__(self, index: int) -> Any:
        return (torch.empty(0), self._where)[index]

    def _where(self, moved: Tensor, inplace: bool) -> Tensor:
        return self._delta.tensor_on(moved.device)
