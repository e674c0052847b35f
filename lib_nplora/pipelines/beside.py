"""Updates that run beside a model's layers: those of one side alone, or of both with their columns scaled."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..hosts.inputs import CONVOLUTIONS

Side = Literal["content", "style"]
SIDES: tuple[Side, Side] = ("content", "style")


@dataclass(frozen=True, eq=False)
class Merger:
    """A factor for each input column of a layer, of either side: ZipLoRA, arXiv 2311.13600, Eq. 3.

    dW = dW_c diag(content) + dW_s diag(style)

    content, style
        (in,), 1 to begin with, which is the plain merge.
    """

    content: Tensor
    style: Tensor

    @classmethod
    def ones(cls, columns: int, like: Tensor) -> Merger:
        """On the device of `like`, in float32 or better."""
        made = [
            torch.ones(columns, device=like.device, dtype=torch.promote_types(like.dtype, torch.float32)) for _ in SIDES
        ]
        return cls(*(one.requires_grad_() for one in made))

    def of(self, side: Side) -> Tensor:
        return self.content if side == "content" else self.style

    def alike(self) -> Tensor:
        """What the third term of the loss keeps small: how much both sides use the same columns, mean |m_c m_s|."""
        return (self.content * self.style).abs().mean()


@dataclass(frozen=True, eq=False)
class Part:
    """One side's update of a module.

    up
        (out of the module, rank).
    down
        (rank, in).
    merger
        (in,), what its columns are scaled by when both sides run; None for nothing.
    """

    side: Side
    up: Tensor
    down: Tensor
    merger: Tensor | None = None


class Beside:
    """Modules and what runs beside them. At first both sides do."""

    def __init__(self, parts: Mapping[nn.Module, Sequence[Part]]) -> None:
        self._parts = parts
        self._alone: Side | None = None

    @contextmanager
    def running(self) -> Iterator[None]:
        """Within it, the modules add the updates to what they give. Leaves no hook behind."""
        with ExitStack() as undo:
            for module, parts in self._parts.items():
                undo.callback(module.register_forward_hook(partial(self._add, parts), with_kwargs=True).remove)
            yield

    @contextmanager
    def alone(self, side: Side) -> Iterator[None]:
        """Within it, one side runs by itself, its columns as they are."""
        self._alone = side
        try:
            yield
        finally:
            self._alone = None

    def _add(
        self, parts: Sequence[Part], module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], out: Tensor
    ) -> Tensor:
        x: Tensor = args[0] if args else next(iter(kwargs.values()))
        for part in parts:
            if self._alone in (None, part.side):
                merger = part.merger if self._alone is None else None
                down = part.down if merger is None else part.down * merger
                out = out + _product(module, x, part.up.to(x.dtype), down.to(x.dtype))
        return out


def _product(module: nn.Module, x: Tensor, up: Tensor, down: Tensor) -> Tensor:
    """up down x, of the shape that the module gives."""
    if isinstance(module, CONVOLUTIONS):
        kernels = down.reshape(len(down), -1, *module.kernel_size)
        return torch.einsum("or,nr...->no...", up, module._conv_forward(x, kernels, None))
    return F.linear(F.linear(x, down), up)
