"""What is there of a host, asked of the modules that it has loaded: none is imported for the question."""

from __future__ import annotations

import sys
from collections.abc import Collection, Mapping

from ..errors import HostError


def is_loaded(module: str) -> bool:
    """Whether the module is loaded."""
    return module in sys.modules


def is_there(module: str, name: str) -> bool:
    """Whether the module, or a class of one, is loaded and has something of this name."""
    owner, _, inner = module.rpartition(".")
    found = sys.modules[module] if module in sys.modules else getattr(sys.modules.get(owner), inner, None)
    return hasattr(found, name)


def lacks_nothing(used: Mapping[str, Collection[str]]) -> None:
    """Raises HostError with the names that are not there of those that an adapter uses, by module or class."""
    lacking = [f"{module}.{name}" for module, names in used.items() for name in names if not is_there(module, name)]
    if lacking:
        raise HostError(f"this WebUI has no {', '.join(lacking)}")
