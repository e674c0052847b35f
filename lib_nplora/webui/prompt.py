"""The tags that a host has parsed out of a prompt, as requests."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from ..errors import RequestError
from ..jobs.session import Asked, Plan
from ..request.request import FusionRequest
from ..request.roles import foreign_remarks, has_role, parse_roles
from ..request.tag import parse_tag

TAG = "nplora"
LORA_TAGS = ("lora", "lyco")
"""The names that the built-in LoRA extension answers to."""

T = TypeVar("T")
ExtraNetworkData = Mapping[str, Sequence[Any]]
"""The host's own: tag name -> one value a tag, whose `items` are the pieces between the colons."""


def read(data: ExtraNetworkData) -> list[Asked]:
    """Everything that a prompt asks of us: one request for each <nplora:>, one for all roles together."""
    tags = [(name, items_of(params)) for name, several in data.items() for params in several]
    asked = [asked_by_tag(name, items) for name, items in tags if is_fusion(name)]
    roles = [(name, items) for name, items in tags if gives_role(name, items)]
    return [*asked, asked_by_roles(roles)] if roles else asked


def is_fusion(name: str) -> bool:
    """Whether a tag of this name, in whatever case, is a fusion's: to the host, another case is another name."""
    return name.lower() == TAG


def gives_role(name: str, items: Sequence[str]) -> bool:
    """Whether a tag of this name, in whatever case, gives a LoRA a role, readable or not."""
    return name.lower() in LORA_TAGS and has_role(items)


def asked_by_tag(name: str, items: Sequence[str]) -> Asked:
    """What an `<nplora:...>`, with its name as it is spelled and its pieces, asks for."""
    return Asked(tag_text(name, items), _parsed(parse_tag, items))


def asked_by_roles(tags: Sequence[tuple[str, Sequence[str]]]) -> Asked:
    """What all the tags with a role, (name, pieces) each, ask for together."""
    text = " ".join(tag_text(name, items) for name, items in tags)
    pieces = [items for _, items in tags]
    return Asked(text, _parsed(parse_roles, pieces), by_role=True, remarks=tuple(foreign_remarks(pieces)))


def plain(data: ExtraNetworkData) -> list[str]:
    """The LoRAs that have an ordinary tag, without a role."""
    tags = (items_of(params) for name in LORA_TAGS for params in data.get(name, ()))
    return [items[0] for items in tags if items and not has_role(items)]


def left_to_host(data: ExtraNetworkData, plan: Plan) -> ExtraNetworkData:
    """What the host itself shall still activate: all but the LoRAs whose roles are honoured."""
    if not plan.by_role:
        return data
    return {
        name: [params for params in tags if name not in LORA_TAGS or not has_role(items_of(params))]
        for name, tags in data.items()
    }


def _parsed(parse: Callable[[T], FusionRequest], pieces: T) -> FusionRequest | RequestError:
    try:
        return parse(pieces)
    except RequestError as error:
        return error


def items_of(params: Any) -> list[str]:
    """The pieces of a tag."""
    return [str(item) for item in params.items]


def tag_text(name: str, items: Sequence[str]) -> str:
    """A tag as it stands in the prompt."""
    return f"<{':'.join([name, *items])}>"
