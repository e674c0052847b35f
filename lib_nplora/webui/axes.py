"""What an X/Y/Z plot can vary of a fusion."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar

from ..errors import RequestError
from ..layers.by_block import ByBlock, Exceptions, read_line
from ..methods.method import Method
from ..methods.parameter import Parameter, Strength
from ..methods.table import method_named, methods, parameters, usual
from ..methods.texts import parse_number
from ..request.request import FusionRequest, Source
from ..request.tag import METHOD, check_name, read_weight
from . import running

PREFIX = "[NP-LoRA] "
"""Stands before the names of our axes in the plot."""


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
    type
        What the plot gives a number as; str for text.
    ranges
        Whether ranges of numbers may be typed although the values are text.
    parameter
        The name of the parameter that it varies, if it does.
    """

    apply: Callable[[FusionRequest, str], FusionRequest]
    cost: float
    choices: Callable[[], Sequence[str]] | None = None
    check: Callable[[str], object] = str
    type: Callable[[Any], Any] = str
    ranges: bool = False
    parameter: str = ""


T = TypeVar("T")


def _named(source: Source, text: str) -> Source:
    return replace(source, name=text)


def _weighted(source: Source, text: str) -> Source:
    """With another weight, and with its exceptions by block as they are."""
    weight = read_weight("weight", text)
    return replace(source, te=weight.usual, unet=weight.usual, exceptions=weight.exceptions or source.exceptions)


def _with_exceptions(source: Source, text: str) -> Source:
    return replace(source, exceptions=_exceptions(partial(parse_number, "weight"), text))


def _in_role(side: str, change: Callable[[Source, str], Source]) -> Callable[[FusionRequest, str], FusionRequest]:
    def apply(request: FusionRequest, text: str) -> FusionRequest:
        sources: Sequence[Source] = getattr(request, side)
        if len(sources) != 1:
            raise RequestError(f"the prompt has {len(sources)} {side}, so an axis cannot tell which to change")
        changed: dict[str, Any] = {side: (change(sources[0], text),)}
        return replace(request, **changed)

    return apply


NONE = "none"
"""No exception by block, as the value of an axis."""


def _exceptions(read: Callable[[str], T], text: str) -> Exceptions[T]:
    """Those of `mid@2 out@hard`: the plot takes a comma for the end of a value. Raises RequestError."""
    return () if text.strip().lower() == NONE else read_line(text, read)


def _of_parameter(parameter: Parameter[Any], cost: float) -> dict[str, Axis]:
    """The axes of a parameter: its value and, if it may have any, its exceptions by block."""

    def usual(request: FusionRequest, text: str) -> FusionRequest:
        value = parameter.read(text)
        if isinstance(value, ByBlock) and not value.exceptions:
            value = replace(value, exceptions=_held(request, parameter).exceptions)
        return request.with_values(**{parameter.name: value})

    def by_block(request: FusionRequest, text: str) -> FusionRequest:
        value = replace(_held(request, parameter), exceptions=_exceptions(parameter.parse, text))
        return request.with_values(**{parameter.name: value})

    trials = (lambda: parameter.trials) if parameter.trials else None
    found = {
        parameter.name: Axis(
            usual,
            cost,
            trials,
            parameter.read,
            parameter.number,
            isinstance(parameter.widget, Strength),
            parameter.name,
        )
    }
    if parameter.by_block:
        found[f"{parameter.name} by block"] = Axis(
            by_block,
            cost + 0.0005,
            check=lambda text: _exceptions(parameter.parse, text),
            parameter=parameter.name,
        )
    return found


def _held(request: FusionRequest, parameter: Parameter[Any]) -> ByBlock[Any]:
    held: ByBlock[Any] = dict(request.given).get(parameter.name) or ByBlock(parameter.default)
    return held


def _known(name: str) -> None:
    check_name("LoRA", name)
    if shelf := running.shelf():
        shelf.resolve(name)


def axes() -> dict[str, Axis]:
    """What a plot can vary, by the part of its label that follows PREFIX. Each cost stands for one axis alone."""
    by_parameter = {
        parameter: _of_parameter(parameter, cost=0.1 + 0.001 * i) for i, parameter in enumerate(parameters().values())
    }
    found: dict[str, Axis] = {}
    for parameter in usual().parameters:
        found |= by_parameter.pop(parameter)
    found |= {
        "content": Axis(_in_role("contents", _named), cost=0.5, choices=running.names, check=_known),
        "style": Axis(_in_role("styles", _named), cost=0.6, choices=running.names, check=_known),
        METHOD: Axis(
            lambda request, text: request.with_method(text),
            cost=0.4,
            choices=lambda: tuple(methods()),
            check=method_named,
        ),
    }
    for i, role in enumerate(("content", "style")):
        side = f"{role}s"
        found[f"{role} weight"] = Axis(_in_role(side, _weighted), cost=0.3 + 0.01 * i, type=float)
        found[f"{role} weight by block"] = Axis(
            _in_role(side, _with_exceptions),
            cost=0.32 + 0.01 * i,
            check=partial(_exceptions, partial(parse_number, "weight")),
        )
    for others in by_parameter.values():
        found |= others
    return found


def applied(request: FusionRequest, values: Mapping[str, str]) -> FusionRequest:
    """The request with a cell's values, less those that its method does not read. Raises RequestError."""
    known = axes()
    for name in sorted(values, key=lambda name: name != METHOD):
        if _reads(request.method, known[name]):
            request = known[name].apply(request, values[name])
    return request


def without_effect(request: FusionRequest, values: Mapping[str, str]) -> list[str]:
    """What is to be said of a cell's values that the method of its request does not read."""
    known = axes()
    return [
        f"{PREFIX}{name} has no effect with method={request.method.name}"
        for name in values
        if not _reads(request.method, known[name])
    ]


def _reads(method: Method, axis: Axis) -> bool:
    return not axis.parameter or method.parameter(axis.parameter) is not None
