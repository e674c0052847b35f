"""Methods that give each block of the model to one side for good."""

from __future__ import annotations

from collections.abc import Sequence

from ..errors import RequestError
from ..layers.block import Block
from ..layers.key import ModuleKey
from ..layers.weights import LoraWeights
from .layer import Layer
from .method import LeftOut, Made, Method, Sum, every
from .parameter import Values
from .selection import Winner


def owner(key: ModuleKey) -> Winner | None:
    """Whose a layer is by B-LoRA, arXiv 2403.14572: W^4 of SDXL holds the content, W^5 the style.

    Those are up_blocks.0.attentions.0 and .1 of diffusers, output_blocks.0.1 and .1.1 by their older names. From
    ordinary LoRAs, whose content and style are spread over all layers, the effect is weaker than from LoRAs that were
    trained so.
    """
    if key.part != "unet" or not key.place.in_transformer:
        return None
    owners: dict[Block, Winner] = {Block("out", 0): "content", Block("out", 1): "style"}
    return owners.get(key.place.block)


def blora(layer: Layer, values: Values) -> Made:
    """B-LoRA's two blocks of SDXL, see `owner`. All other layers, text encoders too, are left out, as B-LoRAs do."""
    sides = {"content": layer.content, "style": layer.style}
    winner = owner(layer.key)
    if winner is None or not sides[winner]:
        return LeftOut()
    deltas = sides[winner].deltas
    return Sum(deltas, []) if winner == "content" else Sum([], deltas)


def _check_pair(values: Values, contents: Sequence[LoraWeights], styles: Sequence[LoraWeights]) -> None:
    """Raises RequestError if one side has no layer at all."""
    for side, loras in (("content", contents), ("style", styles)):
        if not any(owner(key) == side for lora in loras for key in lora.deltas):
            names = " and ".join(f"'{lora.name}'" for lora in loras)
            raise RequestError(
                f"method=blora takes the {side} from one block of SDXL, and {names} has no layer there: choose "
                "another method"
            )


METHODS = (
    Method(
        "blora",
        order=10,
        about="B-LoRA: content from one block of SDXL, style from another",
        told="content from one block of SDXL, style from another, nothing else; meant for LoRAs trained so, weaker "
        "with ordinary ones",
        source="B-LoRA, [2403.14572](https://arxiv.org/abs/2403.14572)",
        fuse=blora,
        takes=every,
        check_pair=_check_pair,
    ),
)
