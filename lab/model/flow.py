"""Rectified flow with a model that predicts the clean picture.

z = (1 - sigma) x + sigma e,   dz/dsigma = e - x = (z - x) / sigma
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from diffusers import UNet2DConditionModel
from transformers import CLIPTextModel, PreTrainedTokenizerFast

PATCH = 4
"""Pixels of a side of a patch; a patch is what a latent pixel is in Stable Diffusion."""

LEAST_SIGMA = 0.1
"""Less noise than this counts as this much in the loss, where a velocity's error would grow without bound."""


def encode(
    tokenizer: PreTrainedTokenizerFast, text_encoder: CLIPTextModel, captions: list[str]
) -> tuple[torch.Tensor, torch.Tensor]:
    """The words' states (captions, words, width), and which of them are words (captions, words)."""
    tokens = tokenizer(captions, padding="max_length", truncation=True, return_tensors="pt").to(text_encoder.device)
    states = text_encoder(tokens.input_ids, attention_mask=tokens.attention_mask).last_hidden_state
    return states, tokens.attention_mask.bool()


def predict(
    unet: UNet2DConditionModel, noisy: torch.Tensor, sigma: torch.Tensor, states: torch.Tensor, words: torch.Tensor
) -> torch.Tensor:
    """The clean picture that the model sees in a noisy one; pictures are (n, 3, size, size), sigma is (n,)."""
    patches = F.pixel_unshuffle(noisy, PATCH).contiguous(memory_format=torch.channels_last)
    weight = words[..., None].to(states.dtype)
    pooled = (states * weight).sum(1) / weight.sum(1)
    out = unet(patches, sigma * 1000, states, class_labels=pooled, encoder_attention_mask=words).sample
    return F.pixel_shuffle(out, PATCH)


def velocity(noisy: torch.Tensor, clean: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
    return (noisy - clean) / sigma.view(-1, 1, 1, 1)


def draw_sigma(count: int, generator: torch.Generator) -> torch.Tensor:
    """Noise levels for training, (count,): the middle often, a little more of the noisy side."""
    return torch.sigmoid(torch.randn(count, generator=generator) + 0.4)


def loss(
    unet: UNet2DConditionModel,
    clean: torch.Tensor,
    noise: torch.Tensor,
    sigma: torch.Tensor,
    states: torch.Tensor,
    words: torch.Tensor,
) -> torch.Tensor:
    """Mean squared error of the velocity."""
    share = sigma.view(-1, 1, 1, 1)
    guess = predict(unet, (1 - share) * clean + share * noise, sigma, states, words)
    error: torch.Tensor = ((guess - clean) / share.clamp(min=LEAST_SIGMA)).square().mean()
    return error
