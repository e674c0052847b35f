"""Tiny random SDXL, CLIP and DINO in folders, and a folder of pairs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from transformers import (
    CLIPImageProcessor,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
    Dinov2Config,
    Dinov2Model,
    ViTConfig,
    ViTImageProcessor,
    ViTModel,
)

from tests.pipelines import tiny

_VIT = {
    "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 32,
    "patch_size": 16,
}  # fmt: skip


def save_models(folder: Path) -> None:
    """sdxl, sd, clip, dino and dinov2."""
    torch.manual_seed(0)
    tiny.made("SDXL").save_pretrained(folder / "sdxl")
    tiny.made("SD 1.5").save_pretrained(folder / "sd")
    size = {"height": 32, "width": 32}
    made = {
        "clip": CLIPVisionModelWithProjection(CLIPVisionConfig(**_VIT, projection_dim=12)),
        "dino": ViTModel(ViTConfig(**_VIT)),
        "dinov2": Dinov2Model(Dinov2Config(**_VIT)),
    }
    for name, model in made.items():
        model.save_pretrained(folder / name)
        processor = CLIPImageProcessor(crop_size=size) if name == "clip" else ViTImageProcessor(size=size)
        processor.size = {"shortest_edge": 32} if name == "clip" else size
        processor.save_pretrained(folder / name)


def save_side(folder: Path, prompt: str, count: int = 2, size: int = 16) -> Path:
    """A folder with pictures of noise and a prompt."""
    folder.mkdir(parents=True)
    chance = np.random.default_rng(len(str(folder.name)))
    for number in range(count):
        Image.fromarray(chance.integers(0, 256, (size, size, 3), np.uint8)).save(folder / f"{number}.png")
    (folder / "prompt.txt").write_text(prompt)
    return folder
