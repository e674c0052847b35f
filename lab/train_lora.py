"""python -m lab.train_lora fox strawberry neon: train LoRAs of held-out subjects and styles, with peft.

A content LoRA learns a held-out subject from its pictures in the known styles, a style LoRA a held-out style from the
known subjects. The judge looks at it every few steps, and the best of those states is kept. A file that is there is
not trained again.
"""

from __future__ import annotations

import argparse
import random
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model_state_dict
from torch import nn

from lab import folder
from lab import judge as judges
from lab.data import Pictures, pictures
from lab.model import flow
from lab.model.pipeline import MiniPipeline
from lab.sample import draw, open_pipeline
from lab.words import (
    HELD_OUT_STYLES,
    HELD_OUT_SUBJECTS,
    STYLES,
    SUBJECTS,
    content_caption,
    style_caption,
)

RANK = 8
LAYERS = {
    "attention": r".*attentions.*\.(to_q|to_k|to_v|to_out\.0)",
    "all": r".*(attentions|resnets|samplers).*\.(to_[qkv]|to_out\.0|proj(_in|_out)?|net\.2|conv\d?|conv_shortcut)",
}
"""Which layers a LoRA may change; names as in Stable Diffusion's UNet."""

LOOK = 20
"""Steps between two looks of the judge."""

LOOKS_AT = 12
"""Pictures of a look."""


@dataclass(frozen=True)
class Lesson:
    """What a LoRA is to learn: pairs of subject and style, and the caption that each will answer to."""

    name: str
    pairs: tuple[tuple[str, str], ...]
    captions: tuple[str, ...]


@dataclass(frozen=True)
class Recipe:
    """How a LoRA is trained."""

    steps: int
    rate: float
    batch: int = 16
    layers: str = "all"
    seed: int = 0

    def rate_at(self, step: int) -> float:
        """Rises over ten steps, falls to a tenth over the second half."""
        return self.rate * min(1, (step + 1) / 10) * max(0.1, min(1, 2 * (1 - step / self.steps)))


CONTENT = Recipe(240, 1e-3)
STYLE = Recipe(480, 2e-3)
"""A style is harder to learn: by CONTENT, the judge names neon in 0.76 of the pictures, by STYLE in 0.93."""


def lesson(name: str) -> Lesson:
    """The lesson of a held-out subject or style."""
    if name in HELD_OUT_STYLES:
        return Lesson(name, tuple((subject, name) for subject in SUBJECTS), tuple(map(style_caption, SUBJECTS)))
    if name not in HELD_OUT_SUBJECTS:
        raise ValueError(f"{name} is not held out; there are {' '.join(HELD_OUT_SUBJECTS + HELD_OUT_STYLES)}")
    captions = tuple(content_caption(name, style) for style in STYLES)
    return Lesson(name, tuple((name, style) for style in STYLES), captions)


def score(pipe: MiniPipeline, judge: judges.Judge, told: Lesson, count: int, seed: int) -> tuple[float, float, float]:
    """Share of pictures whose subject the judge names, the same for the style, and the mean of S_harm."""
    chosen = [index % len(told.pairs) for index in range(count)]
    if count < len(told.pairs):
        chosen = random.Random(0).sample(range(len(told.pairs)), count)
    images = draw(pipe, [told.captions[index] for index in chosen], seed)
    verdicts = [judge.verdict(image[None], *told.pairs[index]) for image, index in zip(images, chosen)]
    named = [sum(getattr(one, side).item() for one in verdicts) / count for side in ("names_subject", "names_style")]
    return named[0], named[1], sum(one.harmonic.item() for one in verdicts) / count


def train(pipe: MiniPipeline, told: Lesson, found: Pictures, judge: judges.Judge, recipe: Recipe) -> None:
    """Leaves the best LoRA on the pipeline's UNet, as the adapter that is named after the lesson."""
    unet = pipe.unet.requires_grad_(False)
    pipe.text_encoder.requires_grad_(False)
    torch.manual_seed(recipe.seed)
    config = LoraConfig(r=RANK, lora_alpha=RANK, target_modules=LAYERS[recipe.layers], init_lora_weights=True)
    unet.add_adapter(config, told.name)
    parameters = [parameter for parameter in unet.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, recipe.rate, betas=(0.9, 0.99), weight_decay=0.0)
    clean = found.tensor(told.pairs)
    with torch.no_grad():
        states, words = flow.encode(pipe.tokenizer, pipe.text_encoder, list(told.captions))
    best, kept = -1.0, [parameter.detach().clone() for parameter in parameters]
    order: list[int] = []
    for step in range(recipe.steps):
        generator = torch.Generator().manual_seed(1_000_000 * (recipe.seed + 1) + step)
        while len(order) < recipe.batch:
            order += torch.randperm(len(clean), generator=generator).tolist()
        seen, order = order[: recipe.batch], order[recipe.batch :]
        noise = torch.randn(recipe.batch, *clean.shape[1:], generator=generator)
        sigma = flow.draw_sigma(recipe.batch, generator)
        for group in optimizer.param_groups:
            group["lr"] = recipe.rate_at(step)
        loss = flow.loss(unet, clean[seen], noise, sigma, states[seen], words[seen])
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        if (step + 1) % LOOK == 0:
            subject, style, harmonic = score(pipe, judge, told, LOOKS_AT, seed=5000)
            print(
                f"{told.name} step {step + 1} loss {loss.item():.3f} {subject:.2f} {style:.2f} {harmonic:.3f}",
                flush=True,
            )
            if harmonic + min(subject, style) > best:
                best, kept = harmonic + min(subject, style), [parameter.detach().clone() for parameter in parameters]
    with torch.no_grad():
        for parameter, value in zip(parameters, kept):
            parameter.copy_(value)


def save(pipe: MiniPipeline, name: str, path: Path) -> None:
    """The adapter in a file that diffusers' load_lora_weights and others read, in half precision."""
    layers = get_peft_model_state_dict(pipe.unet, adapter_name=name)
    half = {key: value.half().contiguous() for key, value in layers.items()}
    pipe.save_lora_weights(path.parent, unet_lora_layers=half, weight_name=path.name)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="+", help="held-out subjects and styles, or: all")
    parser.add_argument("--work", type=Path, default=folder.WORK)
    parser.add_argument("--base", type=Path, help="the pipeline's folder; by default the one that train_base made")
    parser.add_argument("--judge", type=int, default=7, help="the judge's seed")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--layers", choices=LAYERS, default="all")
    parser.add_argument("--steps", type=int, help=f"by default {CONTENT.steps}, of a style {STYLE.steps}")
    parser.add_argument("--rate", type=float, help=f"by default {CONTENT.rate:g}, of a style {STYLE.rate:g}")
    args = parser.parse_args()
    torch.set_num_threads(1)
    found, judge = pictures(args.work), judges.load(folder.judge(args.work, args.judge))
    for name in HELD_OUT_SUBJECTS + HELD_OUT_STYLES if args.names == ["all"] else args.names:
        usual = STYLE if name in HELD_OUT_STYLES else CONTENT
        recipe = Recipe(args.steps or usual.steps, args.rate or usual.rate, layers=args.layers, seed=args.seed)
        path = folder.lora(args.work, name, recipe.layers, recipe.seed)
        if path.exists():
            continue
        began = time.monotonic()
        pipe = open_pipeline(args.base or folder.base(args.work))
        train(pipe, lesson(name), found, judge, recipe)
        save(pipe, name, path)
        subject, style, harmonic = score(pipe, judge, lesson(name), 2 * len(SUBJECTS), seed=9000)
        spent = time.monotonic() - began
        print(f"{path.name}: subject {subject:.2f} style {style:.2f} S_harm {harmonic:.3f} {spent:.0f} s", flush=True)


if __name__ == "__main__":
    main()
