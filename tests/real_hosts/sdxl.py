"""The layers of SDXL that a LoRA trainer changes, by their kohya names."""

from __future__ import annotations

from collections.abc import Iterator

from ..hosts.driver import Module
from .sd15 import text_encoder, transformer

BLOCKS = (
    *((f"input_blocks_{i}_1", 640, 2) for i in (4, 5)),
    *((f"input_blocks_{i}_1", 1280, 10) for i in (7, 8)),
    ("middle_block_1", 1280, 10),
    *((f"output_blocks_{i}_1", 1280, 10) for i in (0, 1, 2)),
    *((f"output_blocks_{i}_1", 640, 2) for i in (3, 4, 5)),
)
"""(name, width, depth) of its transformers."""


def _unet() -> Iterator[Module]:
    for block, width, depth in BLOCKS:
        yield from transformer(f"lora_unet_{block}", width, context=2048, depth=depth, kernel=0)


MODULES = (
    *text_encoder("lora_te1", layers=12, width=768),
    *text_encoder("lora_te2", layers=32, width=1280),
    *_unet(),
)
