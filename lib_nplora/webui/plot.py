"""Our axes in the host's X/Y/Z plot."""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Callable, Mapping, Sequence
from types import ModuleType
from typing import Any

from ..errors import NploraError
from ..methods.texts import format_number
from .axes import PREFIX, Axis, axes

_KEPT = "nplora_axes"
"""Attribute of `p` that holds a cell's values. `p` is copied for each cell: the mapping is never changed in place."""


def of_cell(p: Any) -> Mapping[str, str]:
    """The axes of the plot's cell that `p` is, or none."""
    values: Mapping[str, str] = getattr(p, _KEPT, {})
    return values


def install() -> Callable[[], None]:
    """Add the axes to the host's plot, if it has one. Returns the undo."""
    module = _plot_module()
    if module is None:
        return lambda: None
    options = module.axis_options
    _remove(options)
    options.extend(_plot_option(module, name, axis) for name, axis in axes().items())
    return lambda: _remove(options)


def _remove(options: list[Any]) -> None:
    """In place: the plot keeps the list."""
    options[:] = [option for option in options if not option.label.startswith(PREFIX)]


def _plot_module() -> ModuleType | None:
    """The module of the host's X/Y/Z plot, which the host runs as a script."""
    from modules import scripts

    for data in scripts.scripts_data:
        module = data.module
        if hasattr(module, "axis_options") and hasattr(module, "AxisOption"):
            found: ModuleType = module
            return found
    return None


def _plot_option(module: ModuleType, name: str, axis: Axis) -> Any:
    def apply(p: Any, value: Any, values: Sequence[Any]) -> None:
        text = str(round(value, 8) if isinstance(value, float) else value)
        setattr(p, _KEPT, {**of_cell(p), name: text})

    def confirm(p: Any, values: Sequence[Any]) -> None:
        for value in values:
            try:
                axis.check(str(value))
            except NploraError as error:
                raise type(error)(f"{PREFIX}{name}: {error}") from None

    options: dict[str, Any] = {"confirm": confirm, "cost": axis.cost, "choices": _as_list(axis.choices)}
    if axis.choices and axis.ranges and "prepare" in inspect.signature(module.AxisOption).parameters:
        options["prepare"] = typed
    return module.AxisOption(PREFIX + name, axis.type, apply, **options)


def typed(text: str) -> list[str]:
    """The values that were typed; ranges as for the host's axes of numbers, `0-1 (+0.25)` and `0-1 [5]`."""
    values: list[str] = []
    for value in filter(None, map(str.strip, text.split(","))):
        found = _RANGE.fullmatch(value)
        if found is None:
            values.append(value)
            continue
        start, stop = float(found["start"]), float(found["stop"])
        if found["count"]:
            count, step = int(found["count"]), (stop - start) / max(int(found["count"]) - 1, 1)
        else:
            step = float(found["step"])
            count = math.floor((stop - start) / step + 1e-9) + 1 if step else 1
        values += [format_number(round(start + step * i, 8)) for i in range(count)]
    return values


_NUMBER = r"\d+(?:\.\d*)?"
_RANGE = re.compile(
    rf"(?P<start>{_NUMBER})\s*-\s*(?P<stop>{_NUMBER})\s*(?:\(\+(?P<step>{_NUMBER})\)|\[(?P<count>\d+)\])"
)


def _as_list(choices: Callable[[], Sequence[str]] | None) -> Callable[[], list[str]] | None:
    return (lambda: list(choices())) if choices else None
