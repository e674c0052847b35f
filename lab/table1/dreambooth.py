"""DreamBooth-LoRA for SDXL with peft, by the conventions of diffusers' own script and the papers' numbers."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import DDPMScheduler
from peft import LoraConfig
from PIL import Image, ImageOps
from torch import Tensor, nn

from lab.table1.sides import Side
from lab.train_lora import LAYERS, RANK, save
from lib_nplora.files import replacing

ADAPTER = "learnt"

Stepped = Callable[[int, float], None]
"""(steps done, the last one's loss)."""


@dataclass(frozen=True)
class Recipe:
    """The papers' numbers: rank 8 on attention, one picture a step, by AdamW.

    size
        Pixels of a picture's side.
    """

    steps: int = 1000
    rate: float = 5e-5
    size: int = 1024
    seed: int = 0


@dataclass(frozen=True, eq=False)
class Lesson:
    """Pictures as the UNet meets them, each with its prompt.

    latents
        Mean and deviation of each.
    states, pooled
        What the text encoders say to the prompts.
    """

    latents: tuple[Any, ...]
    states: Tensor
    pooled: Tensor
    scale: float


@torch.no_grad()
def prepared(pipe: Any, side: Side, size: int) -> Lesson:
    """What is the same at every step is calculated once. The VAE calculates in float32, where it does not overflow."""
    vae, dtype = pipe.vae, pipe.vae.dtype
    if dtype != torch.float32:
        vae.to(torch.float32)
    try:
        fitted = [np.array(ImageOps.fit(one, (size, size), Image.Resampling.BICUBIC)) for one in side.pictures]
        pixels = [torch.from_numpy(one).permute(2, 0, 1)[None].float() / 127.5 - 1 for one in fitted]
        latents = tuple(vae.encode(one.to(vae.device)).latent_dist for one in pixels)
    finally:
        if dtype != torch.float32:
            vae.to(dtype)
    states, _, pooled, _ = pipe.encode_prompt(list(side.prompts), do_classifier_free_guidance=False)
    return Lesson(latents, states, pooled, vae.config.scaling_factor)


def train(pipe: Any, side: Side, recipe: Recipe, path: Path, stepped: Stepped = lambda done, loss: None) -> None:
    """Write the LoRA, which appears once it is complete; nothing of it is left in the pipeline.

    What a step sees depends on the seed and on the step's number alone. The first numbers depend on the seed, so that
    LoRAs of one seed start alike, as the papers' do. Raises FileError.
    """
    unet, lesson = pipe.unet, prepared(pipe, side, recipe.size)
    for part in (unet, pipe.vae, pipe.text_encoder, pipe.text_encoder_2):
        part.requires_grad_(False)
    torch.manual_seed(recipe.seed)
    config = LoraConfig(r=RANK, lora_alpha=RANK, target_modules=LAYERS["attention"], init_lora_weights="gaussian")
    unet.add_adapter(config, ADAPTER)
    unet.enable_gradient_checkpointing()
    unet.train()
    try:
        _learn(pipe, lesson, recipe, stepped)
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as part, TemporaryDirectory(dir=path.parent) as folder:
            save(pipe, ADAPTER, Path(folder) / "lora.safetensors")
            shutil.copyfile(Path(folder) / "lora.safetensors", part)
    finally:
        unet.eval()
        unet.disable_gradient_checkpointing()
        pipe.unload_lora_weights()


def _learn(pipe: Any, lesson: Lesson, recipe: Recipe, stepped: Stepped) -> None:
    """Predict the noise, as SDXL does."""
    unet = pipe.unet
    device, dtype = unet.device, unet.dtype
    parameters = [one for one in unet.parameters() if one.requires_grad]
    for one in parameters:
        one.data = one.data.float()
    optimizer = torch.optim.AdamW(parameters, recipe.rate, weight_decay=1e-4)
    noising = DDPMScheduler.from_config(pipe.scheduler.config)
    sizes = torch.tensor([[recipe.size, recipe.size, 0, 0, recipe.size, recipe.size]], device=device, dtype=dtype)
    order: list[int] = []
    for step in range(recipe.steps):
        generator = torch.Generator().manual_seed(1_000_000 * (recipe.seed + 1) + step)
        order = order or torch.randperm(len(lesson.latents), generator=generator).tolist()
        index = order.pop()
        mean, deviation = lesson.latents[index].mean, lesson.latents[index].std
        drawn, noise = (torch.randn(mean.shape, generator=generator).to(device) for _ in range(2))
        clean = (mean + deviation * drawn) * lesson.scale
        level = torch.randint(noising.config.num_train_timesteps, (1,), generator=generator).to(device)
        told = {"text_embeds": lesson.pooled[index, None], "time_ids": sizes}
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            noisy = noising.add_noise(clean, noise, level).to(dtype)
            guess = unet(noisy, level, lesson.states[index, None], added_cond_kwargs=told).sample
        loss = F.mse_loss(guess.float(), noise)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        stepped(step + 1, loss.item())
