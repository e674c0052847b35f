"""The table of fusion methods: every METHODS of the modules beside this one, and what tests add."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterator
from typing import Any

from ..errors import RequestError, did_you_mean
from .method import Method
from .parameter import Parameter

_METHODS: dict[str, Method] = {}


def methods(observing: bool = False) -> dict[str, Method]:
    """Those that LoRAs are enough for, by name, in their order; if `observing`, those that look at the model, too."""
    found = sorted(_METHODS.values(), key=lambda method: method.order)
    return {method.name: method for method in found if observing or not method.observes}


def method_named(name: str) -> Method:
    """Any of them, also one that looks at the model. Raises RequestError."""
    try:
        return _METHODS[name.strip().lower()]
    except KeyError:
        known = methods()
        hint = did_you_mean(name, known) or f" Known: {', '.join(known)}."
        raise RequestError(f"there is no method '{name.strip().lower()}'.{hint}") from None


def usual() -> Method:
    """The method where none is named: the first."""
    return next(iter(methods().values()))


def parameters(observing: bool = False) -> dict[str, Parameter[Any]]:
    """Those of `every_parameter` that tags and panels have."""
    return {name: one for name, one in every_parameter(observing).items() if not one.is_setting}


def every_parameter(observing: bool = False) -> dict[str, Parameter[Any]]:
    """Every parameter of any of these methods, by name, in the order in which they name them, the first default."""
    found: dict[str, Parameter[Any]] = {}
    for method in methods(observing).values():
        for parameter in method.parameters:
            found.setdefault(parameter.name, parameter)
    return found


def third() -> Parameter[Any]:
    """The one that may stand third in a tag, without its name."""
    return next(parameter for parameter in parameters().values() if parameter.positional)


def readers(name: str, observing: bool = False) -> list[Method]:
    """Those of these methods that read the parameter of that name."""
    return [method for method in methods(observing).values() if method.parameter(name)]


def register(method: Method) -> Callable[[], None]:
    """Add a method. Returns the undo.

    Raises ValueError if its name or its order is taken, if it reads a parameter otherwise than another method does, or
    if another parameter than theirs is to stand third in a tag.
    """
    for other in _METHODS.values():
        if other.name == method.name or other.order == method.order:
            raise ValueError(f"methods {other.name} and {method.name} share a name or an order")
        for theirs in other.parameters:
            ours = method.parameter(theirs.name)
            if ours and ours.defaulting(theirs.default) != theirs:
                raise ValueError(f"methods {other.name} and {method.name} read {theirs.name} differently")
            if theirs.positional and any(one.positional and one.name != theirs.name for one in method.parameters):
                raise ValueError(f"methods {other.name} and {method.name} have each a parameter that stands third")
    _METHODS[method.name] = method

    def undo() -> None:
        _METHODS.pop(method.name, None)

    return undo


def _found() -> Iterator[Method]:
    package = __name__.rpartition(".")[0]
    for module in pkgutil.iter_modules(importlib.import_module(package).__path__, f"{package}."):
        if module.name != __name__:
            yield from getattr(importlib.import_module(module.name), "METHODS", ())


for _method in _found():
    register(_method)
