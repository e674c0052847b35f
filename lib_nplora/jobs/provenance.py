"""What the header of a file says of the two LoRAs that it was made from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from .. import __version__
from ..files import Family, carried
from ..layers.by_block import written_exceptions
from ..methods.texts import format_number
from ..request.request import FusionRequest, Source


@dataclass(frozen=True)
class Origin:
    """A file that another is made from.

    metadata
        What its own header says.
    """

    name: str
    sha256: str
    metadata: Mapping[str, str]


def provenance(request: FusionRequest, content: Origin, style: Origin, family: Family | None) -> dict[str, str]:
    """Name, hash and weights of both, for a file of this family; what their own headers say of the model, if needed."""

    def described(origin: Origin, source: Source) -> str:
        te, unet = source.te * request.te, source.unet * request.unet
        told = {"name": origin.name, "sha256": origin.sha256, "te": te, "unet": unet}
        exceptions = written_exceptions(source.exceptions, format_number)
        return json.dumps([{**told, "blocks": exceptions} if exceptions else told])

    return {
        **(carried(content.metadata, style.metadata) if family is None or family.is_apart else {}),
        "nplora_version": __version__,
        "nplora_contents": described(content, request.contents[0]),
        "nplora_styles": described(style, request.styles[0]),
    }
