"""Stable Diffusion 2."""

from __future__ import annotations

from . import unets

FAMILY = unets.family(
    "SD 2",
    te_prefix="lora_te_",
    metadata={"ss_base_model_version": "sd_v2", "ss_v2": "True"},
    context=1024,
    encoders=1,
    inputs=12,
)
