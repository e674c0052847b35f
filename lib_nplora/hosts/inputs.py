"""What the layers of a running model are fed with, as second moments of a few linear functions of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import HostError
from ..maths.lowrank import exact_math

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


class InputMoment:
    """E[z z^T] of z = D x over the inputs x of a module, (rank, rank) float64: a forward pre-hook that adds up.

    x is a row of a linear layer's input, or what a convolution's kernel covers at one place.
    """

    def __init__(self, name: str, module: nn.Module, down: Tensor) -> None:
        """`down` is D, (rank, in). Raises HostError for a module that no product with x can be had of."""
        if not isinstance(module, (nn.Linear, *CONVOLUTIONS)) or getattr(module, "groups", 1) != 1:
            raise HostError(
                f"the inputs of layer {name} ({type(module).__name__}) cannot be looked at: choose a method that LoRAs "
                "are enough for"
            )
        self._name = name
        self._down = down
        self._sum = torch.zeros(len(down), len(down), dtype=torch.float64)
        self._count = 0

    def __call__(self, module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        x: Tensor = args[0] if args else next(iter(kwargs.values()))
        with exact_math():
            z = _product(module, x.float(), self._down.to(x.device)).to("cpu", torch.float64)
            self._sum += z.T @ z
            self._count += len(z)

    @property
    def mean(self) -> Tensor:
        """Raises HostError if there was no input, or one that is no number."""
        if not self._count:
            raise HostError(
                f"layer {self._name} is not used for these pictures: choose a method that LoRAs are enough for"
            )
        if not self._sum.isfinite().all():
            raise HostError(
                f"layer {self._name} is fed with infinite numbers: load the pipeline in bfloat16 or float32"
            )
        return self._sum / self._count


@contextmanager
def inputs_watched(layers: Mapping[Any, tuple[str, nn.Module, Tensor]]) -> Iterator[Mapping[Any, InputMoment]]:
    """Within it, modules are watched: by any key, (name, module, D) -> the moment that grows. Leaves no hook behind."""
    with ExitStack() as undo:
        moments = {}
        for key, (name, module, down) in layers.items():
            moments[key] = InputMoment(name, module, down)
            undo.callback(module.register_forward_pre_hook(moments[key], with_kwargs=True).remove)
        yield moments


def _product(module: nn.Module, x: Tensor, down: Tensor) -> Tensor:
    """(inputs, rank): D x for every x."""
    if isinstance(module, CONVOLUTIONS):
        kernels = down.reshape(len(down), -1, *module.kernel_size)
        made: Tensor = module._conv_forward(x, kernels, None)
        return made.movedim(1, -1).flatten(0, -2)
    return F.linear(x, down).flatten(0, -2)
