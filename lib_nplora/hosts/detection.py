"""What is there of a host, asked of the modules that it has loaded: none is imported for the question."""

from __future__ import annotations

import sys
from collections.abc import Collection, Mapping


def is_there(module: str, name: str) -> bool:
    """Whether the module is loaded and has something of this name."""
    return hasattr(sys.modules.get(module), name)


def missing(used: Mapping[str, Collection[str]]) -> list[str]:
    """Which are not there of the names that an adapter uses, by module."""
    return [f"{module}.{name}" for module, names in used.items() for name in names if not is_there(module, name)]
