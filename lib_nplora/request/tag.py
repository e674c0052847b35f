"""A fusion as one tag: <nplora:CONTENT:STYLE:MU:key=value:...>

The host splits a tag at its colons; this module reads and writes the pieces.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..errors import RequestError, did_you_mean
from ..layers.by_block import ByBlock, read_by_block
from ..methods.table import every_parameter, method_named, parameters, third, usual
from ..methods.texts import format_number, parse_number
from .request import FusionRequest, Source

TAG_SIGNS = ":<>="
"""Signs with a meaning in a tag, so that no tag can name a LoRA that has them."""

METHOD = "method"
FOREIGN = dict.fromkeys(("lbw", "lbwe", "start", "stop", "step"), "lora-block-weight")
"""Keys of other extensions on `<lora:...>` tags -> whose they are."""

PARTS = ("te", "unet")
WEIGHTS = ("c", "s")


def shared_keys(observing: bool = False) -> tuple[str, ...]:
    """The keys that either spelling of a fusion takes, in the order in which they are written.

    observing
        Whether those are among them that only methods read that look at the model, which are refused where tags are.
    """
    known = parameters(observing)
    first = [name for name in known if usual().parameter(name)]
    return (*first, METHOD, *(name for name in known if name not in first))


def tag_keys() -> tuple[str, ...]:
    """The keys of an <nplora:...>."""
    return (*WEIGHTS, *PARTS, *shared_keys())


def check_name(role: str, name: str) -> None:
    """Raises RequestError for the name of a LoRA that cannot stand in a tag."""
    for sign in TAG_SIGNS:
        if sign in name:
            raise RequestError(f"the {role} '{name}' has '{sign}' in its name, which no tag can hold: rename the file")


def split(items: Iterable[str]) -> tuple[list[str], dict[str, str]]:
    """The pieces of a tag as (positional, named).

    Raises RequestError for a key given twice, and for a tag that went on into the next one for want of its end.
    """
    positional: list[str] = []
    named: dict[str, str] = {}
    for item in items:
        if "<" in item:
            raise RequestError(f"it has no '>' before '{item[item.index('<') :]}'")
        key, equals, value = item.partition("=")
        key = key.strip().lower()
        if not equals:
            positional.append(item.strip())
        elif key in named:
            raise RequestError(f"'{key}=' is given twice")
        else:
            named[key] = value
    return positional, named


def refuse_unknown(keys: Iterable[str], known: Sequence[str]) -> None:
    """Raises RequestError for a key that no method reads either: tells whose it is, or the known ones."""
    for key in keys:
        if key not in known and key not in shared_keys(observing=True):
            if key in every_parameter():
                raise RequestError(
                    f"'{key}=' has no place in a tag: it stands among the WebUI's settings, NP-LoRA: {key}"
                )
            if whose := FOREIGN.get(key):
                raise RequestError(f"'{key}=' is {whose}'s and works on <lora:...> tags alone: leave it out here")
            raise RequestError(f"unknown key '{key}'.{did_you_mean(key, known) or ' Known: ' + ', '.join(known) + '.'}")


def read_shared(named: Mapping[str, str]) -> dict[str, Any]:
    """Method and parameters, settings among them, as FusionRequest.of takes them. Raises RequestError."""
    method = method_named(named[METHOD]) if METHOD in named else usual()
    given = {
        name: (method.parameter(name) or parameter).read(named[name])
        for name, parameter in every_parameter(observing=True).items()
        if name in named
    }
    return {METHOD: method, **given}


def written_shared(request: FusionRequest, leave_out: str = "") -> list[str]:
    """The pieces of a tag that `read_shared` reads, less defaults."""
    given, known = dict(request.given), parameters(observing=True)
    texts = {name: known[name].write(value) for name, value in given.items() if name in known and name != leave_out}
    if request.method is not usual():
        texts[METHOD] = request.method.name
    return [f"{key}={texts[key]}" for key in shared_keys(observing=True) if key in texts]


def read_weight(key: str, text: str) -> ByBlock[float]:
    """A weight, maybe with exceptions by block. Raises RequestError."""
    return read_by_block(text, lambda one: parse_number(key, one), 1.0)


def weighted(name: str, weight: ByBlock[float]) -> Source:
    """A LoRA with one weight on both parts."""
    return Source(name, weight.usual, weight.usual, weight.exceptions)


def written_weight(source: Source) -> str:
    """The text that `read_weight` reads, of a LoRA with one weight on both parts."""
    return ByBlock(source.unet, source.exceptions).written(format_number)


def parse_tag(items: Sequence[str]) -> FusionRequest:
    """Read the pieces of `<nplora:...>`. Raises RequestError."""
    positional, named = split(items)
    refuse_unknown(named, tag_keys())
    if not positional or not positional[0]:
        raise RequestError("it names no LoRA. Write <nplora:content:style>")
    if len(positional) < 2 or not positional[1]:
        raise RequestError(f"the style is missing. Write <nplora:{positional[0]}:style>")
    if len(positional) > 3:
        raise RequestError(f"'{positional[3]}' is one value too many. Write <nplora:content:style:mu:key=value>")
    if len(positional) == 3:
        if third().name in named:
            raise RequestError(f"{third().name} is given twice")
        named[third().name] = positional[2]
    content, style = (weighted(name, read_weight(key, named.get(key, "1"))) for name, key in zip(positional, WEIGHTS))
    multipliers: dict[str, Any] = {part: parse_number(part, named[part]) for part in PARTS if part in named}
    return FusionRequest.of((content,), (style,), **multipliers, **read_shared(named))


def format_tag(request: FusionRequest) -> str:
    """The `<nplora:...>` that reads back as `request`.

    For one content and one style, each with one weight; ValueError otherwise (see format_roles).
    """
    sources = *request.contents, *request.styles
    if len(sources) != 2 or any(source.te != source.unet for source in sources):
        raise ValueError("only one content and one style, each of one weight, fit into one tag")
    pieces = ["nplora", *(source.name for source in sources)]
    if unnamed := request.method.parameter(third().name):
        pieces.append(request.values.text(unnamed))
    weights = [(key, written_weight(source)) for key, source in zip(WEIGHTS, sources)]
    pieces += [f"{key}={text}" for key, text in weights if text != "1"]
    pieces += [f"{part}={format_number(getattr(request, part))}" for part in PARTS if getattr(request, part) != 1]
    pieces += written_shared(request, leave_out=unnamed.name if unnamed else "")
    return f"<{':'.join(pieces)}>"
