"""Stable Diffusion 1."""

from __future__ import annotations

from . import unets

FAMILY = unets.family(
    "SD 1",
    te_prefix="lora_te_",
    metadata={"ss_base_model_version": "sd_v1", "ss_v2": "False"},
    context=768,
    encoders=1,
    inputs=12,
)
