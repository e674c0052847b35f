"""A diffusers pipeline of the miniature model; `MiniPipeline.from_pretrained` opens a folder of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from diffusers import DiffusionPipeline, FlowMatchEulerDiscreteScheduler, ImagePipelineOutput, UNet2DConditionModel
from diffusers.image_processor import VaeImageProcessor
from diffusers.loaders import StableDiffusionLoraLoaderMixin
from diffusers.utils.torch_utils import randn_tensor
from transformers import CLIPTextModel, PreTrainedTokenizerFast

from lab.model.flow import PATCH, encode, predict, velocity


class MiniPipeline(DiffusionPipeline, StableDiffusionLoraLoaderMixin):
    """Text to a picture of 48 x 48 pixels. Patches of pixels stand where Stable Diffusion has a VAE's latents."""

    model_cpu_offload_seq = "text_encoder->unet"
    _callback_tensor_inputs = ("latents", "prompt_embeds")

    unet: UNet2DConditionModel
    text_encoder: CLIPTextModel
    tokenizer: PreTrainedTokenizerFast
    scheduler: FlowMatchEulerDiscreteScheduler

    def __init__(
        self,
        unet: UNet2DConditionModel,
        text_encoder: CLIPTextModel,
        tokenizer: PreTrainedTokenizerFast,
        scheduler: FlowMatchEulerDiscreteScheduler,
    ) -> None:
        super().__init__()
        self.register_modules(unet=unet, text_encoder=text_encoder, tokenizer=tokenizer, scheduler=scheduler)
        self.image_processor = VaeImageProcessor(vae_scale_factor=1)
        self._num_timesteps = 0

    @property
    def num_timesteps(self) -> int:
        """Steps of the picture that is being made, or was made last."""
        return self._num_timesteps

    @torch.no_grad()
    def __call__(
        self,
        prompt: str | list[str],
        num_inference_steps: int = 12,
        guidance_scale: float = 3.0,
        generator: torch.Generator | list[torch.Generator] | None = None,
        latents: torch.Tensor | None = None,
        output_type: str = "pil",
        return_dict: bool = True,
        callback_on_step_end: Callable[[Any, int, Any, dict[str, Any]], dict[str, Any]] | None = None,
        callback_on_step_end_tensor_inputs: list[str] | None = None,
    ) -> ImagePipelineOutput | tuple[Any]:
        """One picture a prompt. The callback is called as in diffusers' own pipelines."""
        prompts = [prompt] if isinstance(prompt, str) else list(prompt)
        guided = guidance_scale != 1
        prompt_embeds, words = encode(self.tokenizer, self.text_encoder, prompts + [""] * len(prompts) * guided)
        side = self.unet.config.sample_size * PATCH
        if latents is None:
            shape = (len(prompts), 3, side, side)
            latents = randn_tensor(shape, generator=generator, device=self.device, dtype=prompt_embeds.dtype)
        self.scheduler.set_timesteps(
            sigmas=np.linspace(1, 1 / num_inference_steps, num_inference_steps).tolist(), device=self.device
        )
        self._num_timesteps = len(self.scheduler.timesteps)
        with self.progress_bar(total=self._num_timesteps) as progress:
            for index, timestep in enumerate(self.scheduler.timesteps):
                noisy = torch.cat([latents] * (1 + guided))
                sigma = (timestep / 1000).expand(len(noisy)).to(noisy.dtype)
                clean = predict(self.unet, noisy, sigma, prompt_embeds, words)
                if guided:
                    wanted, plain = clean.chunk(2)
                    clean = plain + guidance_scale * (wanted - plain)
                flow = velocity(latents, clean, sigma[: len(latents)])
                latents = self.scheduler.step(flow, timestep, latents, return_dict=False)[0]
                if callback_on_step_end is not None:
                    there = {"latents": latents, "prompt_embeds": prompt_embeds}
                    names = callback_on_step_end_tensor_inputs or ["latents"]
                    changed = callback_on_step_end(self, index, timestep, {name: there[name] for name in names})
                    latents = changed.get("latents", latents)
                    prompt_embeds = changed.get("prompt_embeds", prompt_embeds)
                progress.update()
        images = latents if output_type == "latent" else self.image_processor.postprocess(latents, output_type)
        return ImagePipelineOutput(images=images) if return_dict else (images,)
