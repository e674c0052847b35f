"""Pictures from the miniature pipeline, as tensors."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from lab.model.pipeline import MiniPipeline

STEPS = 12
GUIDANCE = 3.0


def open_pipeline(folder: Path) -> MiniPipeline:
    """The pipeline of a folder in float32, without progress bars. Ends the program with a sentence if there is none."""
    if not (folder / "model_index.json").is_file():
        raise SystemExit(f"there is no pipeline in '{folder}': train and ship one first, see lab/README.md")
    pipe = MiniPipeline.from_pretrained(folder)
    pipe.text_encoder.float()
    pipe.unet.float().to(memory_format=torch.channels_last)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def noises(seeds: Sequence[int]) -> list[torch.Generator]:
    """One generator a picture, so that a picture does not depend on the others of its batch."""
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def draw(pipe: MiniPipeline, captions: Sequence[str], seed: int | Sequence[int], steps: int = STEPS) -> torch.Tensor:
    """A picture a caption, from noises seed, seed + 1, ..., or from one seed each: (n, 3, 48, 48) from -1 to 1."""
    generators = noises(range(seed, seed + len(captions)) if isinstance(seed, int) else seed)
    images = pipe(list(captions), steps, GUIDANCE, generators, output_type="latent").images
    return images.clamp(-1, 1)
