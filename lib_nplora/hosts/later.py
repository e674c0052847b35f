"""Hands a host what it calculates itself, at the moment when it merges it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..maths.remade import Remade


class Later:
    """Stands where a host expects the tensor of an update, which is made when the host takes it.

    A1111 takes it by `to`. The others take the first weight of a nested patch, `[Later(delta)]`: Forge and Forge
    Classic by `clone`, Forge Neo and reForge as the pair (tensor, function of it).
    """

    def __init__(self, delta: Remade) -> None:
        self._delta = delta
        self.shape = torch.Size(delta.layer_shape)

    def to(self, device: torch.device) -> Tensor:
        """The update on a device, float32."""
        return self._delta.tensor_on(device)

    def clone(self) -> Tensor:
        """The update on the layer's own device, float32."""
        return self._delta.tensor_on(None)

    def __getitem__(self, index: int) -> Any:
        return (torch.empty(0), self._where)[index]

    def _where(self, moved: Tensor, inplace: bool) -> Tensor:
        return self.to(moved.device)
