"""How files spell their tensors and modules. A new spelling is one row of a table.

A tensor's name is a module's name and a role, such as `lora_unet_mid_block_attentions_0_proj_in` and `.lora_up.weight`.
Whatever a module's spelling, its canonical name is the one that kohya's scripts give it in diffusers' block naming:
`lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn1_to_q`, `lora_te1_text_model_...`, `lora_te2_...`.
"""

from __future__ import annotations

import re
from typing import Literal

Role = Literal["up", "down", "mid", "alpha", "scale"]

_ROLES: tuple[tuple[str, Role], ...] = (
    (r"\.lora_up\.weight", "up"),
    (r"\.lora_down\.weight", "down"),
    (r"\.lora_mid\.weight", "mid"),
    (r"\.lora_B(\.\w+)?\.weight", "up"),
    (r"\.lora_A(\.\w+)?\.weight", "down"),
    (r"[._]lora\.up\.weight", "up"),
    (r"[._]lora\.down\.weight", "down"),
    (r"\.lora_linear_layer\.up\.weight", "up"),
    (r"\.lora_linear_layer\.down\.weight", "down"),
    (r"\.alpha", "alpha"),
    (r"\.scale", "scale"),
)
"""How a tensor's name ends -> what the tensor is."""

_OTHER_KINDS = (
    (r"\.hada_(w\d|t\d)", "LoHa"),
    (r"\.lokr_(w\d|t\d)", "LoKr"),
    (r"\.(dora_scale|lora_magnitude_vector)\b", "DoRA"),
    (r"\.[ab][12]\.weight$", "GLoRA"),
    (r"\.on_input$", "IA3"),
    (r"\.(oft_\w+|oft_diag)\b", "OFT"),
    (r"\.(diff|diff_b)$", "full-weight"),
    (r"\.[wb]_norm$", "norm"),
    (r"\.(set|reshape)_weight$", "weight-replacing"),
    (r"\.(lora_up|lora_down|lora_A|lora_B)(\.\w+)?\.bias$|\.bias_(values|indices|size)$", "bias"),
    (r"\.lora_embedding_[AB]", "token-embedding"),
)
"""What a tensor's name holds -> the kind of network it belongs to, which cannot be fused."""

_BARE_UNET = r"(?=(?:down_blocks|mid_block|up_blocks|conv_in|conv_out|time_embedding|add_embedding)\.)"

_PREFIXES = (
    (r"lora_unet_", "lora_unet_"),
    (r"lora_te1?_", "lora_te1_"),
    (r"lora_te2_", "lora_te2_"),
    (r"unet\.", "lora_unet_"),
    (r"text_encoder\.", "lora_te1_"),
    (r"text_encoder_2\.", "lora_te2_"),
    (r"diffusion_model\.", "lora_unet_"),
    (_BARE_UNET, "lora_unet_"),
    (r"(?=text_model\.|encoder\.layers\.)", "lora_te1_"),
)
"""How a module's name starts -> how its canonical name starts."""

_REWRITES = {
    "lora_unet_": (
        (r"_processor(?=_to_)", ""),
        (r"_to_out$", "_to_out_0"),
    ),
    "lora_te1_": (
        (r"^(?=encoder_|embeddings_)", "text_model_"),
        (r"_to_([qkv])$", r"_\1_proj"),
        (r"_to_out$", "_out_proj"),
    ),
}
"""Older and newer spellings of diffusers and transformers -> kohya's, after the prefix, dots already underscores."""
_REWRITES["lora_te2_"] = _REWRITES["lora_te1_"]

_SGM_SINGLES = {
    "input_blocks_0_0": "conv_in",
    "out_2": "conv_out",
    "time_embed_0": "time_embedding_linear_1",
    "time_embed_2": "time_embedding_linear_2",
    "label_emb_0_0": "add_embedding_linear_1",
    "label_emb_0_2": "add_embedding_linear_2",
}
_SGM_MIDDLE = ("resnets_0", "attentions_0", "resnets_1")
_SGM_RESNET = {
    "in_layers_2": "conv1",
    "out_layers_3": "conv2",
    "emb_layers_1": "time_emb_proj",
    "skip_connection": "conv_shortcut",
}


def is_ignored(tensor: str) -> bool:
    """Whether the tensor may stand beside a LoRA without being part of it: a bundled textual inversion."""
    return tensor.startswith("bundle_emb.")


def split(tensor: str) -> tuple[str, Role] | None:
    """The module's name as the file spells it, and the tensor's role; None if it is no tensor of a LoRA."""
    for ending, role in _ROLES:
        if match := re.fullmatch(f"(.+?){ending}", tensor):
            return match[1].removeprefix("base_model.model."), role
    return None


def other_kind(tensor: str) -> str | None:
    """The kind of network, not LoRA, that the tensor belongs to, if it is known."""
    return next((kind for pattern, kind in _OTHER_KINDS if re.search(pattern, tensor)), None)


def canonical(module: str) -> str | None:
    """The canonical name of a module as files spell it; None if it belongs to no UNet and no CLIP text encoder."""
    for pattern, prefix in _PREFIXES:
        if match := re.match(pattern, module):
            rest = module[match.end() :].replace(".", "_")
            for wrong, right in _REWRITES[prefix]:
                rest = re.sub(wrong, right, rest)
            return prefix + (_from_sgm(rest) if prefix == "lora_unet_" else rest)
    return None


def _from_sgm(name: str) -> str:
    """From the block naming of the original Stable Diffusion code (LDM, sgm) to that of diffusers.

    A UNet of three layers a block, as in SD 1, SD 2 and SDXL. Other names come back as they are.
    """
    if name in _SGM_SINGLES:
        return _SGM_SINGLES[name]
    if match := re.fullmatch(r"middle_block_([012])_(.+)", name):
        return f"mid_block_{_SGM_MIDDLE[int(match[1])]}_{_SGM_RESNET.get(match[2], match[2])}"
    if match := re.fullmatch(r"(in|out)put_blocks_(\d+)_(\d)_(.+)", name):
        side = "down" if match[1] == "in" else "up"
        block, layer = divmod(int(match[2]) - (side == "down"), 3)
        if match[4] in ("op", "conv"):
            return f"{side}_blocks_{block}_{side}samplers_0_conv"
        kind = "resnets" if match[3] == "0" else "attentions"
        return f"{side}_blocks_{block}_{kind}_{layer}_{_SGM_RESNET.get(match[4], match[4])}"
    return name
