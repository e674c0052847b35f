"""What stands where in the folder that drawing, training and tables share."""

from __future__ import annotations

from pathlib import Path

WORK = Path(__file__).parent / "work"
"""Where downloads, pictures and training runs are kept; git ignores it."""


def base(work: Path) -> Path:
    """The folder of the base model's pipeline."""
    return work / "base" / "pipeline"


def judge(work: Path, seed: int) -> Path:
    return work / f"judge-{seed}.safetensors"


def judges(work: Path) -> list[Path]:
    """Those that are trained."""
    return sorted(work.glob("judge-*.safetensors"))


def lora(work: Path, name: str, layers: str, seed: int) -> Path:
    """That of a held-out subject or style, on these layers, trained from this seed."""
    return work / "loras" / f"{name}-{layers}-{seed}.safetensors"


def joint(work: Path, subject: str, style: str, layers: str, seed: int) -> Path:
    """The one LoRA that was trained on the pictures of both."""
    return work / "joint" / f"{subject}-{style}-{layers}-{seed}.safetensors"


def zipped(work: Path, subject: str, style: str, layers: str, seeds: tuple[int, int]) -> Path:
    """The two LoRAs, from these seeds, merged by columns that were trained for the pair."""
    return work / "zipped" / f"{subject}-{style}-{layers}-{seeds[0]}-{seeds[1]}.safetensors"
