"""What the panel holds: the one table from which its arguments, infotext fields and tag are read."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from ..errors import RequestError, did_you_mean
from ..layers.by_block import ByBlock, Exceptions, read_line, written_exceptions
from ..methods.parameter import Parameter, Strength
from ..methods.table import method_named, parameters, usual
from ..methods.texts import HARD, format_number, parse_number
from ..request.request import FusionRequest, Source
from ..request.tag import check_name, read_weight, weighted

POSITIONS = (
    *("enabled", "content", "style", "mu", "hard", "content_weight", "style_weight", "k", "method", "te"),
    *("alpha", "beta", "scope", "density", "seed"),
    *("mu_by_block", "content_by_block", "style_by_block"),
    "balance",
)
"""What programs give by position, in the order in which releases added it. What a method adds stands after it."""

ROLES = ("content", "style")


def by_block(name: str) -> str:
    """The name of the exceptions to a strength, among the panel's values."""
    return f"{name}_by_block"


def fields() -> dict[str, Any]:
    """The panel's values, in the order of the script's arguments, which only ever grows at its end: name -> default.

    enabled
        Whether the panel adds its tag to the prompt.
    content, style
        Names of LoRAs; empty if none is chosen.
    mu, hard
        `hard` overrides mu, which keeps its value for when it is switched off again.
    te
        Whether the text encoder takes part.
    ..._by_block
        Exceptions to a strength or weight, as `mid@2,out@hard`.
    Others
        Parameters of methods as in the tag; empty for the method's own default. Heeded by the methods that read them,
        kept for when one is chosen.
    """
    found: dict[str, Any] = {"enabled": False, "content": "", "style": "", "method": usual().name, "te": True}
    for role in ROLES:
        found |= {f"{role}_weight": 1.0, by_block(role): ""}
    for parameter in parameters().values():
        found |= _of_parameter(parameter)
    return {name: found[name] for name in (*POSITIONS, *(name for name in found if name not in POSITIONS))}


def _of_parameter(parameter: Parameter[Any]) -> dict[str, Any]:
    """The panel's values for a parameter, with their defaults."""
    exceptions = {by_block(parameter.name): ""} if parameter.by_block else {}
    if isinstance(parameter.widget, Strength):
        return {parameter.name: parameter.default, parameter.widget.hard: False, **exceptions}
    own = parameter.write(parameter.default) if usual().parameter(parameter.name) else ""
    return {parameter.name: own, **exceptions}


@dataclass(frozen=True)
class PanelState:
    """The panel's values, by name. See `fields`."""

    held: Mapping[str, Any]

    def __getitem__(self, name: str) -> Any:
        return self.held[name]

    @classmethod
    def with_values(cls, **values: Any) -> PanelState:
        """The panel's defaults, but for these."""
        return cls({**fields(), **values})

    @classmethod
    def from_args(cls, args: Sequence[Any]) -> PanelState:
        """Read the script's arguments: by position, by name in a dictionary, or both.

        A dictionary may stand anywhere; without `enabled` in it, it switches the panel on. A strength may be `hard`,
        and it and a weight may have exceptions by block, as in the tag. Raises RequestError.
        """
        values = _taken_apart(_values(args))
        return cls({name: _read(type(default), name, values[name]) for name, default in fields().items()})

    @classmethod
    def is_on(cls, args: Sequence[Any]) -> bool:
        """The first of the values alone: what else an unused panel holds does not matter. Raises RequestError."""
        return bool(_read(bool, "enabled", _values(args)["enabled"]))

    @classmethod
    def of(cls, request: FusionRequest, enabled: bool) -> PanelState:
        """The panel that stands for a request, as far as it can: its first content and style, with one weight each."""
        values: dict[str, Any] = {"enabled": enabled, "method": request.method.name, "te": request.te != 0}
        for role, source in zip(ROLES, (request.contents[0], request.styles[0])):
            values |= {role: source.name, f"{role}_weight": source.unet}
            values[by_block(role)] = ",".join(written_exceptions(source.exceptions, format_number))
        given = dict(request.given)
        for parameter in parameters().values():
            if parameter.name in given:
                values |= _shown(parameter, given[parameter.name])
        return cls.with_values(**values)

    @classmethod
    def unread(cls, args: Sequence[Any]) -> list[str]:
        """What is given by name, and not empty, that the panel's method does not read. Raises RequestError."""
        method = method_named(_read_text("method", _values(args)["method"]))
        named = [named for named in args if isinstance(named, Mapping)]
        given = {name for values in named for name, value in values.items() if value not in (None, "")}
        others = [one for one in parameters().values() if not method.parameter(one.name)]
        return [name for one in others for name in _of_parameter(one) if name in given]

    def request(self) -> FusionRequest:
        """What the panel asks for. Raises RequestError."""
        for role in ROLES:
            if not self[role]:
                raise RequestError("choose a content LoRA and a style LoRA")
            check_name(role, self[role])
        method = method_named(self["method"])
        content, style = (self._source(role) for role in ROLES)
        given: dict[str, Any] = {one.name: self._value(one) for one in method.parameters if not one.is_setting}
        return FusionRequest.of((content,), (style,), method, te=1.0 if self["te"] else 0.0, **given)

    def _source(self, role: str) -> Source:
        name = f"{role}_weight"
        return weighted(self[role], ByBlock(self[name], self._exceptions(role, partial(parse_number, name))))

    def _exceptions(self, name: str, read: Callable[[str], Any]) -> Exceptions[Any]:
        return read_line(self[by_block(name)], read)

    def _value(self, parameter: Parameter[Any]) -> Any:
        """What the panel has for a parameter of the method; None for the method's own."""
        shown = self[parameter.name]
        if isinstance(parameter.widget, Strength):
            shown = parameter.format(HARD if self[parameter.widget.hard] else shown)
        value = parameter.read(shown) if shown else None
        exceptions = self._exceptions(parameter.name, parameter.parse) if parameter.by_block else ()
        if not exceptions:
            return value
        usual = value if isinstance(value, ByBlock) else ByBlock(parameter.default)
        return replace(usual, exceptions=exceptions)


def _shown(parameter: Parameter[Any], value: Any) -> dict[str, Any]:
    """A parameter's value as the panel's values have it."""
    strength = value if isinstance(value, ByBlock) else ByBlock(value)
    exceptions = ",".join(written_exceptions(strength.exceptions, parameter.format))
    shown: dict[str, Any] = {by_block(parameter.name): exceptions} if parameter.by_block else {}
    if not isinstance(parameter.widget, Strength):
        return {**shown, parameter.name: parameter.format(strength.usual)}
    hard = strength.usual == HARD
    usual_value = parameter.default if hard else strength.usual
    return {**shown, parameter.name: usual_value, parameter.widget.hard: hard}


def _values(args: Sequence[Any]) -> dict[str, Any]:
    """What is given, by name, with defaults for the rest. Raises RequestError."""
    values = fields()
    for name, value in zip(list(values), args):
        if not isinstance(value, Mapping) and value is not None:
            values[name] = value
    for named in args:
        if isinstance(named, Mapping):
            _refuse_unknown(named, values)
            given = {name: value for name, value in named.items() if value is not None}
            values |= {"enabled": True, **_overridden(given), **given}
    return values


def _overridden(given: Mapping[str, Any]) -> dict[str, Any]:
    """What no longer counts once these are given: an older `hard` would hide a new strength."""
    strengths = [one for one in parameters().values() if one.name in given and isinstance(one.widget, Strength)]
    return {one.widget.hard: False for one in strengths if isinstance(one.widget, Strength)}


def _taken_apart(values: Mapping[str, Any]) -> dict[str, Any]:
    """With `hard` and exceptions by block, given as text in a strength or a weight, where the panel has them."""
    found = dict(values)
    for parameter in parameters().values():
        if isinstance(parameter.widget, Strength) and isinstance(values[parameter.name], str):
            shown = _shown(parameter, parameter.read(values[parameter.name]))
            found |= {name: value for name, value in shown.items() if value or name == parameter.name}
    for role in ROLES:
        name = f"{role}_weight"
        if isinstance(values[name], str):
            weight = read_weight(name, values[name])
            exceptions = ",".join(written_exceptions(weight.exceptions, format_number))
            found |= {name: weight.usual, by_block(role): exceptions or values[by_block(role)]}
    return found


def _refuse_unknown(named: Mapping[str, Any], known: Mapping[str, Any]) -> None:
    for name in named:
        if name not in known:
            hint = did_you_mean(str(name), known) or f" Known: {', '.join(known)}."
            raise RequestError(f"the panel has no '{name}'.{hint}")


def _read(kind: type, name: str, value: Any) -> Any:
    """An argument as a value of that type. Raises RequestError."""
    if isinstance(value, (list, tuple, Mapping)):
        raise RequestError(f"{name} is a list, where one value belongs")
    return _READ[kind](name, value)


def _read_bool(name: str, value: Any) -> bool:
    if isinstance(value, str) and value.strip().lower() in ("true", "false"):
        return value.strip().lower() == "true"
    if isinstance(value, (bool, int, float)) and value in (0, 1):
        return bool(value)
    raise RequestError(f"{name}={value} is neither true nor false")


def _read_number(name: str, value: Any) -> float:
    return parse_number(name, str(value))


def _read_text(name: str, value: Any) -> str:
    """As it would be typed; none is empty, and a whole number is written as one."""
    if value is None:
        return ""
    return str(value).removesuffix(".0") if isinstance(value, float) else str(value).strip()


_READ = {bool: _read_bool, float: _read_number, str: _read_text}
"""How an argument becomes a value of that type. Each raises RequestError."""
