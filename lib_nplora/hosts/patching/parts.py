"""The parts of a Forge model, and the host's names for their parameters."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any
from weakref import WeakKeyDictionary

import torch

from ...layers.block import Block
from ...layers.key import ModuleKey
from ...layers.place import Part
from .dialect import Dialect

ATTRIBUTE: dict[Part, str] = {"unet": "unet", "te": "clip"}
"""Where a model keeps the patcher of a part."""


def patchers(objects: Any) -> list[tuple[Part, Any]]:
    """The patchers of a model that has them, UNet first as in the host."""
    return [(part, getattr(objects, name)) for part, name in ATTRIBUTE.items() if getattr(objects, name) is not None]


def model_patcher(patcher: Any) -> Any:
    """What holds a patcher's patches: the text encoder's stands within another object."""
    return getattr(patcher, "patcher", patcher)


def model_of(part: Part, patcher: Any) -> Any:
    """The torch module that a patcher patches."""
    return patcher.model if part == "unet" else patcher.cond_stage_model


def blocks(objects: Any) -> set[Block]:
    """The blocks of a model that has them."""
    keys = (
        ModuleKey(name, part)
        for part, patcher in patchers(objects)
        for name, _ in model_of(part, patcher).named_parameters()
    )
    return {key.place.block for key in keys}


def dtype(objects: Any, key: ModuleKey) -> torch.dtype:
    """The number format of a parameter of a model."""
    found: torch.dtype = model_of(key.part, getattr(objects, ATTRIBUTE[key.part])).get_parameter(key.name).dtype
    return found


class KeyTables:
    """The host's own tables from names in LoRA files to the model's keys, each made once."""

    def __init__(self, dialect: Dialect) -> None:
        self._dialect = dialect
        self._tables: WeakKeyDictionary[Any, dict[str, Hashable]] = WeakKeyDictionary()

    def of(self, part: Part, patcher: Any) -> dict[str, Hashable]:
        """The table of a part."""
        model = model_of(part, patcher)
        if model not in self._tables:
            self._tables[model] = self._dialect.names(part, model)
        return self._tables[model]
