"""Where a patch of Forge's goes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ...errors import HostError
from ...layers.place import Part


@dataclass(frozen=True)
class Target:
    """Where a patch goes.

    part, key
        Where the parameter is in the model.
    rows
        (start, stop) of its rows, None for all.
    change
        What the host does to the update before it adds it, such as swapping halves.
    """

    part: Part
    key: str
    rows: tuple[int, int] | None = None
    change: Callable[[Tensor], Tensor] | None = None

    @classmethod
    def of(cls, part: Part, target: Any) -> Target:
        """What the host means by key, or (key, (dimension, start, length) or None[, change])."""
        if isinstance(target, str):
            return cls(part, target)
        key, offset, *change = target
        if offset and offset[0] != 0:
            raise HostError(f"this WebUI patches columns of layer {key}, which no fusion can")
        rows = (offset[1], offset[1] + offset[2]) if offset else None
        return cls(part, key, rows, change[0] if change else None)
