"""How the UNets and CLIP text encoders of SD 1, SD 2 and SDXL name their layers."""

from __future__ import annotations

import re

_REWRITES = {
    "lora_unet_": (
        (r"_processor(?=_to_)", ""),
        (r"_to_out$", "_to_out_0"),
    ),
    "lora_te1_": (
        (r"^(?=encoder_|embeddings_|final_layer_norm)", "text_model_"),
        (r"_to_([qkv])$", r"_\1_proj"),
        (r"_to_out$", "_out_proj"),
    ),
}
"""Older and newer spellings of diffusers and transformers -> kohya's, after the prefix, dots already underscores."""
_REWRITES["lora_te2_"] = _REWRITES["lora_te1_"]

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


_BLOCKS = r"(?:down_blocks|mid_block|up_blocks|conv_in|conv_norm_out|conv_out|time_embedding|add_embedding)(?:_|$)"
"""How the name of every layer of such a UNet starts in diffusers."""


_WORDS = (
    r"(?:down|up|transformer)\.blocks|mid\.block|to\.(?:[qkv]|out)|proj\.(?:in|out)|conv\.(?:norm\.out|in|out|shortcut)"
    r"|time\.emb\.proj|(?:time|add)\.embedding|linear\.[12]"
)
"""Parts of a name in diffusers that hold an underscore, written with dots."""


def canonical(rest: str, prefix: str) -> str | None:
    """The canonical name of a layer named `rest`, dots already underscores, of the model that `prefix` stands for.

    None if the layer is in no such UNet.
    """
    for wrong, right in _REWRITES.get(prefix, ()):
        rest = re.sub(wrong, right, rest)
    if prefix == "lora_unet_":
        rest = _from_sgm(rest)
        return prefix + rest if re.match(_BLOCKS, rest) else None
    return prefix + rest


def dotted(rest: str) -> str:
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
