"""What the panel holds: the one table from which its arguments, infotext fields and tag are read."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import RequestError, did_you_mean
from ..maths.rank_rule import RankRule
from ..methods.table import OPTIONS, method_named
from ..request.request import HARD, PARSERS, FusionRequest, Source, check_name, format_number, parse_mu, parse_number


@dataclass(frozen=True)
class PanelState:
    """The panel's values, in the order of the script's arguments, which only ever grows at its end.

    enabled
        Whether the panel adds its tag to the prompt.
    content, style
        Names of LoRAs; empty if none is chosen.
    mu, hard
        `hard` overrides mu, which keeps its value for when it is switched off again.
    k
        As in the tag: all, 8, 90%.
    te
        Whether the text encoder takes part.
    alpha, beta, scope, density, seed
        As in the tag; empty for the method's own. Heeded by the methods that read them, kept for when one is chosen.
    """

    enabled: bool = False
    content: str = ""
    style: str = ""
    mu: float = 0.5
    hard: bool = False
    content_weight: float = 1.0
    style_weight: float = 1.0
    k: str = "all"
    method: str = "np"
    te: bool = True
    alpha: str = ""
    beta: str = ""
    scope: str = ""
    density: str = ""
    seed: str = ""

    @classmethod
    def from_args(cls, args: Sequence[Any]) -> PanelState:
        """Read the script's arguments: by position, by name in a dictionary, or both.

        A dictionary may stand anywhere; without `enabled` in it, it switches the panel on. mu may be `hard`.
        Raises RequestError.
        """
        values = cls._values(args)
        if isinstance(values["mu"], str) and parse_mu(values["mu"]) == HARD:
            values |= {"mu": cls.mu, "hard": True}
        read: dict[str, Any] = {name: _READ[type(getattr(cls, name))](name, value) for name, value in values.items()}
        return cls(**read)

    @classmethod
    def is_on(cls, args: Sequence[Any]) -> bool:
        """The first of the values alone: what else an unused panel holds does not matter. Raises RequestError."""
        return _read_bool("enabled", cls._values(args)["enabled"])

    @classmethod
    def _values(cls, args: Sequence[Any]) -> dict[str, Any]:
        values: dict[str, Any] = dataclasses.asdict(cls())
        for name, value in zip(values, args):
            if not isinstance(value, Mapping) and value is not None:
                values[name] = value
        for named in args:
            if isinstance(named, Mapping):
                _refuse_unknown(named, values)
                given = {name: value for name, value in named.items() if value is not None}
                hard = {"hard": False} if "mu" in given else {}
                values |= {"enabled": True, **hard, **given}
        return values

    @classmethod
    def of(cls, request: FusionRequest, enabled: bool) -> PanelState:
        """The panel that stands for a request, as far as it can: its first content and style, with one weight each."""
        content, style = request.contents[0], request.styles[0]
        hard = request.mu == HARD
        return cls(
            enabled=enabled,
            content=content.name,
            style=style.name,
            mu=cls.mu if hard else request.mu,
            hard=hard,
            content_weight=content.unet,
            style_weight=style.unet,
            k=str(request.k),
            method=request.method,
            te=request.te != 0,
            **{name: _text(getattr(request, name)) for name in OPTIONS},
        )

    def request(self) -> FusionRequest:
        """What the panel asks for. Raises RequestError."""
        for role, name in (("content", self.content), ("style", self.style)):
            if not name:
                raise RequestError("choose a content LoRA and a style LoRA")
            check_name(role, name)
        method = self.method.lower()
        given = {name: getattr(self, name) for name in method_named(method).reads if name in OPTIONS}
        return FusionRequest(
            (Source(self.content, self.content_weight, self.content_weight),),
            (Source(self.style, self.style_weight, self.style_weight),),
            mu=HARD if self.hard else parse_mu(format_number(self.mu)),
            k=RankRule.parse(self.k),
            method=method,
            te=1.0 if self.te else 0.0,
            **{name: PARSERS[name](text) for name, text in given.items() if text},
        )


NAMES = tuple(field.name for field in dataclasses.fields(PanelState))


def _refuse_unknown(named: Mapping[str, Any], known: Mapping[str, Any]) -> None:
    for name in named:
        if name not in known:
            hint = did_you_mean(str(name), known) or f" Known: {', '.join(known)}."
            raise RequestError(f"the panel has no '{name}'.{hint}")


def _read_bool(name: str, value: Any) -> bool:
    if isinstance(value, str) and value.strip().lower() in ("true", "false"):
        return value.strip().lower() == "true"
    if isinstance(value, (bool, int, float)) and value in (0, 1):
        return bool(value)
    raise RequestError(f"{name}={value} is neither true nor false")


def _read_number(name: str, value: Any) -> float:
    return parse_number(name, str(value))


def _read_text(name: str, value: Any) -> str:
    return _text(value)


def _text(value: Any) -> str:
    """As it would be typed; none is empty, and a whole number is written as one."""
    if value is None:
        return ""
    return str(value).removesuffix(".0") if isinstance(value, float) else str(value).strip()


_READ = {bool: _read_bool, float: _read_number, str: _read_text}
"""How an argument becomes a field of that type. Each raises RequestError."""
