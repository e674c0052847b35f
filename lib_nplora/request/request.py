"""What the user asks for. Knows no LoRA and no tensor."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ..errors import RequestError
from ..layers.block import Block
from ..layers.by_block import ByBlock, Exceptions
from ..layers.key import ModuleKey
from ..methods.method import Method
from ..methods.parameter import Parameter, Values
from ..methods.table import every_parameter, method_named, usual

HEAVIEST = 1e12
"""The most that a weight may be, multipliers included: by more, layers could leave the range of float32."""


@dataclass(frozen=True)
class Source:
    """A LoRA by name, with its weights (finite).

    te, unet
        On the text encoder and on the diffusion model.
    exceptions
        Its weights in single blocks, instead.
    """

    name: str
    te: float = 1.0
    unet: float = 1.0
    exceptions: Exceptions[float] = ()

    def weight(self, key: ModuleKey) -> float:
        """In a layer."""
        usual: float = getattr(self, key.part)
        return ByBlock(usual, self.exceptions).at(key.place.block)


Given = tuple[tuple[str, Any], ...]
"""(name of a parameter, its value), in the order of the table of methods."""


@dataclass(frozen=True)
class FusionRequest:
    """One fusion. `FusionRequest.of` makes one.

    contents, styles
        At least one of each.
    method
        What does it.
    given
        The method's parameters that are not at their default, and whatever was given that it does not read.
    te, unet
        Multipliers of the fused update on that part.
    """

    contents: tuple[Source, ...]
    styles: tuple[Source, ...]
    method: Method = field(default_factory=usual)
    given: Given = ()
    te: float = 1.0
    unet: float = 1.0

    @classmethod
    def of(
        cls,
        contents: tuple[Source, ...],
        styles: tuple[Source, ...],
        method: str | Method | None = None,
        te: float = 1.0,
        unet: float = 1.0,
        **given: Any,
    ) -> FusionRequest:
        """A request with these values of parameters, by their names. Raises RequestError for an unknown method.

        A value that is None is not given.
        """
        if not isinstance(method, Method):
            method = usual() if method is None else method_named(method)
        return cls(contents, styles, method, _given(method, given), te, unet)

    @property
    def title(self) -> str:
        return " + ".join(x.name for x in self.contents) + " x " + " + ".join(x.name for x in self.styles)

    @property
    def values(self) -> Values:
        """What the method reads."""
        given = dict(self.given)
        own = self.method.parameters
        return Values({one.name: given.get(one.name, one.held(one.default)) for one in own})

    @property
    def unread(self) -> list[str]:
        """What is given that the method does not read, by name."""
        return [name for name, _ in self.given if not self.method.parameter(name)]

    @property
    def remarks(self) -> list[str]:
        """What the user would not expect of these values."""
        keys = ", ".join(f"{name}=" for name in self.unread)
        return [f"{keys} has no effect with method={self.method.name}"] if keys else []

    @property
    def blocks(self) -> list[Block]:
        """Every block that has an exception, each once."""
        strengths = [value.exceptions for _, value in self.given if isinstance(value, ByBlock)]
        pairs = [*strengths, *(source.exceptions for source in (*self.contents, *self.styles))]
        return list(dict.fromkeys(block for exceptions in pairs for block, _ in exceptions))

    def with_values(self, **changed: Any) -> FusionRequest:
        """The request with these values of parameters, by name; None for the default."""
        return replace(self, given=_given(self.method, {**dict(self.given), **changed}))

    def with_method(self, name: str) -> FusionRequest:
        """The request with that method, and without what it does not read. Raises RequestError."""
        method = method_named(name)
        read = {name: value for name, value in self.given if method.parameter(name)}
        return replace(self, method=method, given=_given(method, read))

    def check(self) -> None:
        """Raises RequestError for weights that are too large, and for values that do not go together."""
        for source in (*self.contents, *self.styles):
            exceptions = [weight for _, weight in source.exceptions]
            for part in ("te", "unet"):
                for weight in (getattr(source, part), *exceptions):
                    whole = weight * getattr(self, part)
                    if not abs(whole) <= HEAVIEST:
                        raise RequestError(f"the weight {whole:g} of '{source.name}' is too large: 1e12 is the most")
        self.method.check(self.values)


def _given(method: Method, values: Mapping[str, Any]) -> Given:
    """As FusionRequest holds it."""

    def counts(parameter: Parameter[Any]) -> bool:
        own = method.parameter(parameter.name)
        return own is None or bool(held(parameter) != own.held(own.default))

    def held(parameter: Parameter[Any]) -> Any:
        return parameter.held(values[parameter.name])

    known = every_parameter(observing=True)
    if unknown := ", ".join(name for name in values if name not in known):
        raise TypeError(f"no method reads {unknown}")
    return tuple((name, held(one)) for name, one in known.items() if values.get(name) is not None and counts(one))
