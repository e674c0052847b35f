"""What the UNets of SD 1, SD 2 and SDXL have in common: the names of their layers.

Canonical names are those that kohya's scripts give in diffusers' block naming, such as
`lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn1_to_q`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial

from ...errors import FileError
from ...layers.block import Block
from ...layers.key import ModuleKey
from ...maths.delta import Delta
from ...maths.lowrank import LowRankDelta
from .. import text_encoders
from ..slot import Slot
from .family import PREFIX, Evidence, Family

BARE = (
    *("(?:down|up)_blocks", "mid_block", "conv_(?:norm_)?(?:in|out)", "(?:time|add|class)_embedding"),
    *("(?:input|output)_blocks", "middle_block", "time_embed", "label_emb", r"out\.[02]"),
)
"""How names start that have no prefix."""

_REWRITES = ((r"_processor(?=_to_)", ""), (r"_to_out$", "_to_out_0"))
"""Older spellings of diffusers -> kohya's, after the prefix, dots already underscores."""

_SGM_SINGLES = {
    "input_blocks_0_0": "conv_in",
    "out_0": "conv_norm_out",
    "out_2": "conv_out",
    "time_embed_0": "time_embedding_linear_1",
    "time_embed_2": "time_embedding_linear_2",
    "label_emb_0_0": "add_embedding_linear_1",
    "label_emb_0_2": "add_embedding_linear_2",
}
_SGM_MIDDLE = ("resnets_0", "attentions_0", "resnets_1")
_SGM_RESNET = {
    "in_layers_0": "norm1",
    "in_layers_2": "conv1",
    "out_layers_0": "norm2",
    "out_layers_3": "conv2",
    "emb_layers_1": "time_emb_proj",
    "skip_connection": "conv_shortcut",
}

_KERNELS = (
    (r"_conv[12]$|lora_unet_conv_(in|out)$|_(down|up)samplers_0_conv$", (3, 3)),
    (r"_conv_shortcut$", (1, 1)),
)
"""Layers of a UNet that are convolutions, and their kernels."""


_BLOCKS = r"(?:down_blocks|mid_block|up_blocks|conv_in|conv_norm_out|conv_out|(?:time|add|class)_embedding)(?:_|$)"
"""How the name of every layer of such a UNet starts in diffusers."""


_WORDS = (
    r"(?:down|up|transformer)\.blocks|mid\.block|to\.(?:[qkv]|out)|proj\.(?:in|out)|conv\.(?:norm\.out|in|out|shortcut)"
    r"|time\.emb\.proj|(?:time|add|class)\.embedding|linear\.[12]"
)
"""Parts of a name in diffusers that hold an underscore, written with dots."""


def slot_of(rest: str) -> Slot | None:
    """The slot of a layer named `rest`, dots already underscores; None if the layer is in no such UNet."""
    for wrong, right in _REWRITES:
        rest = re.sub(wrong, right, rest)
    rest = _from_sgm(rest)
    return Slot(PREFIX + rest) if re.match(_BLOCKS, rest) else None


def _dotted(rest: str) -> str:
    """The name that diffusers gives a layer of a UNet, by its canonical name without the prefix."""
    return re.sub(_WORDS, lambda word: word[0].replace(".", "_"), rest.replace("_", "."))


def kernel(layer: str) -> tuple[int, ...]:
    """The kernel of a layer by its canonical name, () if it is no convolution, or not in every model."""
    return next((shape for pattern, shape in _KERNELS if re.search(pattern, layer)), ())


def _from_sgm(name: str) -> str:
    """From the block naming of the original Stable Diffusion code (LDM, sgm) to that of diffusers.

    A UNet of three layers a block, as in SD 1, SD 2 and SDXL. Other names come back as they are.
    """
    if name in _SGM_SINGLES:
        return _SGM_SINGLES[name]
    if match := re.fullmatch(r"middle_block_([012])_(.+)", name):
        return f"mid_block_{_SGM_MIDDLE[int(match[1])]}_{_SGM_RESNET.get(match[2], match[2])}"
    if match := re.fullmatch(r"(in|out)put_blocks_(\d{1,3})_(\d)_(.+)", name):
        side = "down" if match[1] == "in" else "up"
        block, layer = divmod(int(match[2]) - (side == "down"), 3)
        if match[4] in ("op", "conv"):
            return f"{side}_blocks_{block}_{side}samplers_0_conv"
        kind = "resnets" if match[3] == "0" else "attentions"
        return f"{side}_blocks_{block}_{kind}_{layer}_{_SGM_RESNET.get(match[4], match[4])}"
    return name


def family(label: str, te_prefix: str, metadata: Mapping[str, str], context: int, encoders: int, inputs: int) -> Family:
    """A family whose diffusion model is such a UNet.

    te_prefix
        How kohya's files call the first text encoder.
    context
        Width of the text embedding that cross-attention reads.
    encoders
        How many text encoders there are.
    inputs
        How many input blocks the UNet has; it has as many output blocks.
    """

    def claims(evidence: Evidence) -> float:
        found = next((width for name, width in evidence.widths.items() if re.search(r"_attn2_to_[kv]$", name)), None)
        return float(found == context)

    return Family(
        label,
        metadata,
        blocks=(
            *(Block("te", number) for number in range(1, encoders + 1)),
            *(Block("in"), Block("mid"), Block("out")),
            *(Block(label, number) for label in ("in", "out") for number in range(inputs)),
        ),
        bare=BARE,
        slot_of=slot_of,
        claims=claims,
        kernel=kernel,
        entries={"kohya": partial(_in_kohya, te_prefix), "diffusers": _in_diffusers},
        readers={"diffusers": "diffusers, and not throughout by WebUIs, for which kohya's is made"},
        keeps_words=False,
    )


def _in_kohya(te_prefix: str, layers: Mapping[ModuleKey, Delta]) -> dict[str, Delta]:
    """Canonical names are kohya's but for the first text encoder's, and have no slices."""
    return {re.sub("^lora_te1_", te_prefix, str(key)): delta for key, delta in layers.items()}


def _in_diffusers(layers: Mapping[ModuleKey, Delta]) -> dict[str, Delta]:
    """The names of diffusers for a UNet's layers, `unet.` and all, and its text encoders'.

    Raises FileError for whole layers and biases, which diffusers reads under no name.
    """
    found: dict[str, Delta] = {}
    for key, delta in layers.items():
        name = str(key)
        if not isinstance(delta, LowRankDelta):
            raise FileError(
                f"layer {name} has no factors, which diffusers' spelling cannot hold: choose kohya's, or a rank"
            )
        if key.part == "te":
            found[text_encoders.in_diffusers(name)] = delta
        else:
            found[f"unet.{_dotted(name.removeprefix('lora_unet_'))}"] = delta
    return found
