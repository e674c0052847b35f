"""What is shipped: the weights beside this file, and the true pictures that the demo compares with."""

from __future__ import annotations

from pathlib import Path

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
