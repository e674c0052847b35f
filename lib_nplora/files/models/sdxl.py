"""Stable Diffusion XL."""

from __future__ import annotations

import re
from dataclasses import replace

from . import unets
from .family import PREFIX, Evidence, Family

_SDXL = unets.family(
    "SDXL",
    te_prefix="lora_te1_",
    metadata={"ss_base_model_version": "sdxl_base_v1-0", "ss_v2": "False"},
    context=2048,
    encoders=2,
    inputs=9,
)


def _claims(evidence: Evidence) -> float:
    """A second text encoder tells where no layer reads the text: no other model with a UNet has one."""
    widths = evidence.widths
    if any(re.search(r"_attn2_to_[kv]$", name) for name in widths):
        return _SDXL.claims(evidence)
    unet = [name for name in widths if name.startswith(PREFIX)]
    has_blocks = any(re.match(r"lora_unet_(down_blocks|mid_block|up_blocks)_", name) for name in unet)
    has_second_encoder = any(name.startswith("lora_te2_") for name in widths)
    return float(has_second_encoder and (has_blocks or not unet))


FAMILY: Family = replace(_SDXL, claims=_claims)
