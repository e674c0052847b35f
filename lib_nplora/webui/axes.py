"""The X/Y/Z plot's axes."""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any

from ..errors import NploraError, RequestError
from ..maths.rank_rule import RankRule
from ..methods.selection import SCOPES
from ..methods.table import METHODS, OPTIONS, method_named, scope_named
from ..request.request import PARSERS, FusionRequest, Source, check_name, format_number, parse_mu, parse_number
from . import running

PREFIX = "[NP-LoRA] "
_KEPT = "nplora_axes"
"""Attribute of `p` that holds a cell's values. `p` is copied for each cell: the mapping is never changed in place."""


@dataclass(frozen=True)
class Axis:
    """A row of the table.

    apply
        (request, text) -> request with that value. Raises RequestError.
    cost
        The plot varies axes of a higher cost less often. Those of the pair are the highest, mu the lowest of ours; none
        two are alike, for then the plot would choose. A checkpoint costs 1, a VAE 0.7.
    choices
        What the plot offers, none for values to be typed.
    check
        Raises NploraError for a text that no cell could use.
    """

    apply: Callable[[FusionRequest, str], FusionRequest]
    cost: float
    choices: Callable[[], Sequence[str]] | None = None
    check: Callable[[str], object] = str
    type: Callable[[Any], Any] = str


def _named(source: Source, text: str) -> Source:
    return replace(source, name=text)


def _weighted(source: Source, text: str) -> Source:
    weight = parse_number("weight", text)
    return replace(source, te=weight, unet=weight)


def _in_role(side: str, change: Callable[[Source, str], Source]) -> Callable[[FusionRequest, str], FusionRequest]:
    def apply(request: FusionRequest, text: str) -> FusionRequest:
        sources: Sequence[Source] = getattr(request, side)
        if len(sources) != 1:
            raise RequestError(f"the prompt has {len(sources)} {side}, so an axis cannot tell which to change")
        changed: dict[str, Any] = {side: (change(sources[0], text),)}
        return replace(request, **changed)

    return apply


def _option(name: str, cost: float, type: Callable[[Any], Any]) -> Axis:
    """Of a setting that only some methods read."""
    parse = PARSERS[name]
    return Axis(lambda request, text: replace(request, **{name: parse(text)}), cost=cost, check=parse, type=type)


def _with_method(request: FusionRequest, text: str) -> FusionRequest:
    """Without the settings that this method does not read, so that a plot of methods has none without effect."""
    reads = method_named(text).reads
    unread: dict[str, Any] = {name: None for name in OPTIONS if name not in reads}
    return replace(request, method=text, **unread)


def _known(name: str) -> None:
    check_name("LoRA", name)
    if host := running.host():
        host.resolve(name)


AXES = {
    "mu": Axis(
        lambda request, text: replace(request, mu=parse_mu(text)),
        cost=0.1,
        choices=lambda: ("0", "0.1", "0.25", "0.5", "1", "2", "5", "10", "hard"),
        check=parse_mu,
    ),
    "content": Axis(_in_role("contents", _named), cost=0.5, choices=running.names, check=_known),
    "style": Axis(_in_role("styles", _named), cost=0.6, choices=running.names, check=_known),
    "content weight": Axis(_in_role("contents", _weighted), cost=0.12, type=float),
    "style weight": Axis(_in_role("styles", _weighted), cost=0.14, type=float),
    "k": Axis(
        lambda request, text: replace(request, k=RankRule.parse(text)),
        cost=0.2,
        choices=lambda: ("1", "2", "4", "8", "16", "32", "90%", "99%", "all"),
        check=RankRule.parse,
    ),
    "method": Axis(
        _with_method,
        cost=0.3,
        choices=lambda: tuple(METHODS),
        check=method_named,
    ),
    "alpha": _option("alpha", cost=0.15, type=float),
    "beta": _option("beta", cost=0.16, type=float),
    "density": _option("density", cost=0.21, type=float),
    "seed": _option("seed", cost=0.18, type=int),
    "scope": replace(_option("scope", cost=0.25, type=str), choices=lambda: tuple(SCOPES), check=scope_named),
}
"""What a plot can vary, by the part of its label that follows PREFIX."""


def of_cell(p: Any) -> Mapping[str, str]:
    """The axes of the plot's cell that `p` is, or none."""
    values: Mapping[str, str] = getattr(p, _KEPT, {})
    return values


def applied(request: FusionRequest, values: Mapping[str, str]) -> FusionRequest:
    """The request with a cell's values. Raises RequestError."""
    for name, text in values.items():
        request = AXES[name].apply(request, text)
    return request


def install() -> Callable[[], None]:
    """Add the axes to the host's plot, if it has one. Returns the undo."""
    module = _plot_module()
    if module is None:
        return lambda: None
    options = module.axis_options
    _remove(options)
    options.extend(_plot_option(module, name, axis) for name, axis in AXES.items())
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
    if name == "mu" and "prepare" in inspect.signature(module.AxisOption).parameters:
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
