"""What the user asks for, and its two spellings in a prompt.

    <nplora:CONTENT:STYLE:MU:key=value:...>
    <lora:CONTENT:0.8:role=content> <lora:STYLE:1:role=style:mu=0.5>

The host splits a tag at its colons; this module reads and writes the pieces. Knows no LoRA and no tensor.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from ..errors import RequestError, did_you_mean
from ..maths.rank_rule import RankRule

HARD = math.inf
"""mu that removes everything inside the style's subspace; spelled `hard`."""


@dataclass(frozen=True)
class Source:
    """A LoRA by name, with its weights on the text encoder and on the diffusion model (finite)."""

    name: str
    te: float = 1.0
    unet: float = 1.0


@dataclass(frozen=True)
class FusionRequest:
    """One fusion.

    contents, styles
        At least one of each.
    mu
        Strength of the projection, 0 (plain merge) to HARD.
    k
        How many of the style's directions are protected.
    method
        A name from the table of methods; not checked here.
    te, unet
        Multipliers of the fused update on that part.
    alpha, beta, scope, density, seed
        For the methods that read them; None for the method's own default.
    """

    contents: tuple[Source, ...]
    styles: tuple[Source, ...]
    mu: float = 0.5
    k: RankRule = field(default_factory=RankRule)
    method: str = "np"
    te: float = 1.0
    unet: float = 1.0
    alpha: float | None = None
    beta: float | None = None
    scope: str | None = None
    density: float | None = None
    seed: int | None = None

    @property
    def title(self) -> str:
        return " + ".join(x.name for x in self.contents) + " x " + " + ".join(x.name for x in self.styles)


def parse_number(key: str, text: str) -> float:
    """A finite number. Raises RequestError."""
    try:
        value = float(text)
    except ValueError:
        decimal_comma = re.fullmatch(r"\s*([+-]?[0-9]*),([0-9]+)\s*", text)
        hint = f" Write {decimal_comma[1]}.{decimal_comma[2]}." if decimal_comma else ""
        raise RequestError(f"{key}={text.strip()} is not a number.{hint}") from None
    if not math.isfinite(value):
        raise RequestError(f"{key}={text.strip()} is not a finite number")
    return value


def parse_mu(text: str) -> float:
    """A number >= 0, or `hard`. Raises RequestError."""
    text = text.strip()
    if text.lower() == "hard":
        return HARD
    try:
        value = parse_number("mu", text)
    except RequestError as error:
        raise RequestError(f"{error.args[0].rstrip('.')}: mu is a number from 0 up, or 'hard'") from None
    if value < 0:
        raise RequestError(f"mu={text} is negative: mu is a number from 0 up, or 'hard'")
    return value


def parse_density(text: str) -> float:
    """A share: 0.2 or 20%. Raises RequestError."""
    share = re.fullmatch(r"(.*[0-9.])\s*%\s*", text)
    value = parse_number("density", share[1]) / 100 if share else parse_number("density", text)
    if not 0 < value <= 1:
        raise RequestError(f"density={text.strip()} is not a share: it is above 0 and at most 1, or at most 100%")
    return value


def parse_seed(text: str) -> int:
    """A whole number from 0 to 2^32 - 1. Raises RequestError."""
    text = text.strip()
    if not re.fullmatch("[0-9]{1,10}", text) or int(text) >= 2**32:
        raise RequestError(f"seed={text} is not a whole number from 0 to {2**32 - 1}")
    return int(text)


TAG_SIGNS = ":<>="
"""Signs with a meaning in a tag, so that no tag can name a LoRA that has them."""


def check_name(role: str, name: str) -> None:
    """Raises RequestError for the name of a LoRA that cannot stand in a tag."""
    for sign in TAG_SIGNS:
        if sign in name:
            raise RequestError(f"the {role} '{name}' has '{sign}' in its name, which no tag can hold: rename the file")


def format_number(value: float) -> str:
    """The shortest text that reads back as the same number; `hard` for infinity."""
    return "hard" if value == HARD else repr(float(value)).removesuffix(".0")


@dataclass(frozen=True)
class _Option:
    """A `key=value` of the tag: how it is read, which field it sets, and how that field is written."""

    field: str
    parse: Callable[[str], Any]
    format: Callable[[Any], str] = str


_SHARED = {
    "mu": _Option("mu", parse_mu, format_number),
    "k": _Option("k", RankRule.parse),
    "method": _Option("method", lambda text: text.strip().lower()),
    "alpha": _Option("alpha", partial(parse_number, "alpha"), format_number),
    "beta": _Option("beta", partial(parse_number, "beta"), format_number),
    "scope": _Option("scope", lambda text: text.strip().lower()),
    "density": _Option("density", parse_density, format_number),
    "seed": _Option("seed", parse_seed),
}
PARSERS = {key: option.parse for key, option in _SHARED.items()}
"""How the text of each is read. Each raises RequestError."""

_PARTS = {part: _Option(part, partial(parse_number, part), format_number) for part in ("te", "unet")}
_WEIGHTS = ("c", "s")

TAG_KEYS = (*_WEIGHTS, *_PARTS, *_SHARED)
ROLES = ("content", "style")


def split(items: Iterable[str]) -> tuple[list[str], dict[str, str]]:
    """The pieces of a tag as (positional, named). Raises RequestError for a key given twice."""
    positional: list[str] = []
    named: dict[str, str] = {}
    for item in items:
        key, equals, value = item.partition("=")
        key = key.strip().lower()
        if not equals:
            positional.append(item.strip())
        elif key in named:
            raise RequestError(f"'{key}=' is given twice")
        else:
            named[key] = value
    return positional, named


def _refuse_unknown(named: Mapping[str, str], known: Sequence[str]) -> None:
    for key in named:
        if key not in known:
            raise RequestError(f"unknown key '{key}'.{did_you_mean(key, known) or ' Known: ' + ', '.join(known) + '.'}")


def _options(named: Mapping[str, str], table: Mapping[str, _Option]) -> dict[str, Any]:
    return {option.field: option.parse(named[key]) for key, option in table.items() if key in named}


def parse_tag(items: Sequence[str]) -> FusionRequest:
    """Read the pieces of `<nplora:...>`. Raises RequestError."""
    positional, named = split(items)
    _refuse_unknown(named, TAG_KEYS)
    if not positional or not positional[0]:
        raise RequestError("it names no LoRA. Write <nplora:content:style>")
    if len(positional) < 2 or not positional[1]:
        raise RequestError(f"the style is missing. Write <nplora:{positional[0]}:style>")
    if len(positional) > 3:
        raise RequestError(f"'{positional[3]}' is one value too many. Write <nplora:content:style:mu:key=value>")
    if len(positional) == 3:
        if "mu" in named:
            raise RequestError("mu is given twice")
        named["mu"] = positional[2]
    content, style = (
        Source(name, weight, weight)
        for name, weight in zip(positional, (parse_number(key, named.get(key, "1")) for key in _WEIGHTS))
    )
    return FusionRequest((content,), (style,), **_options(named, _SHARED), **_options(named, _PARTS))


def format_tag(request: FusionRequest) -> str:
    """The `<nplora:...>` that reads back as `request`.

    For one content and one style, each with one weight; ValueError otherwise (see format_roles).
    """
    sources = *request.contents, *request.styles
    if len(sources) != 2 or any(source.te != source.unet for source in sources):
        raise ValueError("only one content and one style, each of one weight, fit into one tag")
    pieces = ["nplora", *(source.name for source in sources), format_number(request.mu)]
    pieces += [f"{key}={format_number(source.te)}" for key, source in zip(_WEIGHTS, sources) if source.te != 1]
    pieces += _formatted(request, _PARTS) + _formatted(request, _SHARED, leave_out="mu")
    return f"<{':'.join(pieces)}>"


def _formatted(request: FusionRequest, table: Mapping[str, _Option], leave_out: str = "") -> list[str]:
    default = FusionRequest((), ())
    return [
        f"{key}={option.format(getattr(request, option.field))}"
        for key, option in table.items()
        if key != leave_out and getattr(request, option.field) != getattr(default, option.field)
    ]


def has_role(items: Sequence[str]) -> bool:
    """Whether the pieces of a `<lora:...>` tag carry a role, readable or not."""
    return any(item.partition("=")[0].strip().lower() == "role" and "=" in item for item in items)


def parse_roles(tags: Sequence[Sequence[str]]) -> FusionRequest:
    """Read the pieces of all `<lora:...:role=...>` tags of a prompt as one request. Raises RequestError.

    Weights mean what they mean to the host: text encoder, then diffusion model, which follows the first if left out.
    mu, k and method may stand in any of the tags.
    """
    sources: dict[str, list[Source]] = {role: [] for role in ROLES}
    shared: dict[str, str] = {}
    for items in tags:
        positional, named = split(items)
        _refuse_unknown(named, ("role", "te", "unet", "dyn", *_SHARED))
        role = named["role"].strip().lower()
        if role not in sources:
            raise RequestError(f"there is no role '{role}'. Write role=content or role=style")
        if not positional or not positional[0]:
            raise RequestError("it names no LoRA")
        if len(positional) > 3 or "dyn" in named:
            raise RequestError("a LoRA with a role cannot be cut to a smaller rank (dyn)")
        te = parse_number("te", named.get("te", positional[1] if len(positional) > 1 else "1"))
        unet = parse_number("unet", named.get("unet", positional[2] if len(positional) > 2 else repr(te)))
        sources[role].append(Source(positional[0], te, unet))
        for key in _SHARED.keys() & named.keys():
            if shared.setdefault(key, named[key]) != named[key]:
                raise RequestError(f"'{key}=' has two values, {shared[key]} and {named[key]}")
    for role, partner in zip(ROLES, reversed(ROLES)):
        if not sources[role]:
            names = ", ".join(source.name for source in sources[partner])
            raise RequestError(f"{names} has role={partner}, but no LoRA has role={role}")
    return FusionRequest(tuple(sources["content"]), tuple(sources["style"]), **_options(shared, _SHARED))


def format_roles(request: FusionRequest) -> str:
    """The `<lora:...:role=...>` tags that read back as `request`; te and unet are folded into the weights."""
    tags = []
    options = _formatted(request, _SHARED)
    for role, sources in zip(ROLES, (request.contents, request.styles)):
        for source in sources:
            te, unet = source.te * request.te, source.unet * request.unet
            weights = [format_number(te)] + ([format_number(unet)] if unet != te else [])
            tags.append(f"<{':'.join(['lora', source.name, *weights, f'role={role}', *options])}>")
            options = []
    return " ".join(tags)
