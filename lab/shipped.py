"""What is shipped: the weights beside this file, and the true pictures that the demo compares with."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

WEIGHTS = Path(__file__).parent / "weights"
BASE = WEIGHTS / "base"
JUDGE = WEIGHTS / "judge.safetensors"


def lora(name: str) -> Path:
    """The LoRA file of a held-out subject or style."""
    return WEIGHTS / "loras" / f"{name}.safetensors"


def truth(subject: str, style: str) -> Image.Image:
    """How the subject truly looks in the style."""
    return Image.open(truth_path(subject, style)).convert("RGB")


def truth_path(subject: str, style: str) -> Path:
    return WEIGHTS / "truth" / f"{subject}-{style}.png"


def as_tensor(images: Sequence[Image.Image]) -> torch.Tensor:
    """(n, 3, size, size), -1 to 1."""
    stacked = torch.from_numpy(np.stack([np.asarray(image) for image in images]))
    return stacked.permute(0, 3, 1, 2).float() / 127.5 - 1
