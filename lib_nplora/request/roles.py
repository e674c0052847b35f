"""A fusion as roles on ordinary tags: <lora:CONTENT:0.8:role=content> <lora:STYLE:1:role=style:mu=0.5>"""

from __future__ import annotations

from collections.abc import Sequence

from ..errors import RequestError
from ..layers.by_block import read_exceptions, written_exceptions
from ..methods.texts import format_number, parse_number
from .request import FusionRequest, Source
from .tag import FOREIGN, read_shared, refuse_unknown, shared_keys, split, written_shared

ROLES = ("content", "style")

ROLE = "role"
BLOCKS = "blocks"
"""Exceptions to a LoRA's weight. In a key of its own: hosts read what stands where they look for a number."""


def role_keys() -> tuple[str, ...]:
    """The keys of a tag with a role."""
    return (ROLE, "te", "unet", "dyn", BLOCKS, *shared_keys())


def has_role(items: Sequence[str]) -> bool:
    """Whether the pieces of a `<lora:...>` tag carry a role, readable or not."""
    return any(item.partition("=")[0].strip().lower() == ROLE and "=" in item for item in items)


def parse_roles(tags: Sequence[Sequence[str]]) -> FusionRequest:
    """Read the pieces of all `<lora:...:role=...>` tags of a prompt as one request. Raises RequestError.

    Weights mean what they mean to the host: text encoder, then diffusion model, which follows the first if left out.
    The method and its parameters may stand in any of the tags. Keys of other extensions are left to them.
    """
    sources: dict[str, list[Source]] = {role: [] for role in ROLES}
    shared: dict[str, str] = {}
    for items in tags:
        positional, named = split(items)
        refuse_unknown([key for key in named if key not in FOREIGN], role_keys())
        role = named[ROLE].strip().lower()
        if role not in sources:
            raise RequestError(f"there is no role '{role}'. Write role=content or role=style")
        if not positional or not positional[0]:
            raise RequestError("it names no LoRA")
        if len(positional) > 3 or "dyn" in named:
            raise RequestError("a LoRA with a role cannot be cut to a smaller rank (dyn)")
        te = parse_number("te", named.get("te", positional[1] if len(positional) > 1 else "1"))
        unet = parse_number("unet", named.get("unet", positional[2] if len(positional) > 2 else repr(te)))
        pieces = named[BLOCKS].split(",") if BLOCKS in named else []
        exceptions = read_exceptions(pieces, lambda text: parse_number("weight", text))
        sources[role].append(Source(positional[0], te, unet, exceptions))
        for key in (key for key in shared_keys(observing=True) if key in named):
            if shared.setdefault(key, named[key]) != named[key]:
                raise RequestError(f"'{key}=' has two values, {shared[key]} and {named[key]}")
    for role, partner in zip(ROLES, reversed(ROLES)):
        if not sources[role]:
            names = ", ".join(source.name for source in sources[partner])
            raise RequestError(f"{names} has role={partner}, but no LoRA has role={role}")
    return FusionRequest.of(tuple(sources["content"]), tuple(sources["style"]), **read_shared(shared))


def foreign_remarks(tags: Sequence[Sequence[str]]) -> list[str]:
    """What is to be said of other extensions' keys once the LoRAs are fused, which hides the tags from their owners."""
    found = []
    for name, *pieces in tags:
        for key in (piece.partition("=")[0].strip().lower() for piece in pieces if "=" in piece):
            if whose := FOREIGN.get(key):
                instead = f". Write {BLOCKS}=in@0.6 for weights by block" if key.startswith("lbw") else ""
                found.append(
                    f"'{key}=' of '{name}' has no effect: {whose} does not reach a LoRA that is fused{instead}"
                )
    return found


def format_roles(request: FusionRequest) -> str:
    """The `<lora:...:role=...>` tags that read back as `request`; te and unet are folded into the weights."""
    tags = []
    options = written_shared(request)
    for role, sources in zip(ROLES, (request.contents, request.styles)):
        for source in sources:
            te, unet = source.te * request.te, source.unet * request.unet
            weights = [format_number(te)] + ([format_number(unet)] if unet != te else [])
            exceptions = [
                (block, weight * (request.te if block.label == "te" else request.unet))
                for block, weight in source.exceptions
            ]
            by_block = [f"{BLOCKS}={','.join(written_exceptions(exceptions, format_number))}"] if exceptions else []
            tags.append(f"<{':'.join(['lora', source.name, *weights, f'role={role}', *by_block, *options])}>")
            options = []
    return " ".join(tags)
