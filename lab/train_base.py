"""python -m lab.train_base: train the base model on all known subjects in all known styles.

Two processes are twice as fast on two cores: torchrun --nproc-per-node 2 -m lab.train_base. A run that was stopped
goes on where it was; the result does not depend on either.
"""

from __future__ import annotations

import argparse
import os
import random
import time
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.distributed as dist
from diffusers.training_utils import EMAModel
from torch import nn

from lab.data import Pictures, pictures
from lab.folder import WORK
from lab.model import flow
from lab.model.parts import new_pipeline
from lab.model.pipeline import MiniPipeline
from lab.words import ANY_STYLE, ANY_SUBJECT, CLASS, STYLES, SUBJECTS, caption

RATE = 1e-3
WARM_UP = 100
"""Steps in which the rate rises."""

REPORT = 25
"""Steps between two lines of the log."""


@dataclass(frozen=True)
class Plan:
    """How long to train."""

    steps: int
    cooldown: int
    """The last steps, in which the rate falls to a fiftieth."""
    batch: int = 40
    """Pictures a step, over all processes."""

    def rate(self, step: int) -> float:
        left = (self.steps - step) / max(self.cooldown, 1)
        return RATE * min(1, (step + 1) / WARM_UP) * max(0.02, min(1, left))


class Trained(nn.Module):
    """What is trained, as one module whose forward is the loss."""

    def __init__(self, pipe: MiniPipeline) -> None:
        super().__init__()
        self.pipe = pipe
        self.unet = pipe.unet.to(memory_format=torch.channels_last)
        self.text_encoder = pipe.text_encoder

    def forward(
        self, captions: list[str], clean: torch.Tensor, noise: torch.Tensor, sigma: torch.Tensor
    ) -> torch.Tensor:
        states, words = flow.encode(self.pipe.tokenizer, self.text_encoder, captions)
        return flow.loss(self.unet, clean, noise, sigma, states, words)


def training_caption(subject: str, style: str, chance: random.Random) -> str:
    """Most often the full caption; now and then less of it, so that less means "any"."""
    if chance.random() < 0.1:
        return ""
    name = ANY_SUBJECT if chance.random() < 0.08 else subject
    where = chance.choices((style, ANY_STYLE, None), (0.86, 0.07, 0.07))[0]
    return caption(name, where, kind=CLASS[subject])


def picked(step: int, batch: int, count: int) -> list[int]:
    """Which of `count` pictures the step sees: every one once before any comes twice."""
    places = range(step * batch, (step + 1) * batch)
    order = {epoch: random.Random(epoch).sample(range(count), count) for epoch in {place // count for place in places}}
    return [order[place // count][place % count] for place in places]


def train(found: Pictures, folder: Path, plan: Plan, start: Path | None, every: float) -> None:
    """Trains to the plan's end from the folder's checkpoint, or from the start; saves every so many seconds."""
    rank, ranks = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
    pipe = MiniPipeline.from_pretrained(start) if start else new_pipeline()
    module = Trained(pipe).train()
    parameters = list(module.parameters())
    optimizer = torch.optim.AdamW(parameters, RATE, betas=(0.9, 0.98), weight_decay=0.01)
    average = EMAModel(parameters, decay=0.995)
    state, first = folder / "state.pt", 0
    if state.exists():
        kept = torch.load(state, weights_only=True)
        module.load_state_dict(kept["module"])
        optimizer.load_state_dict(kept["optimizer"])
        average.load_state_dict(kept["average"])
        first = kept["step"]
    parallel = nn.parallel.DistributedDataParallel(module) if ranks > 1 else module
    pairs = [(subject, style) for subject in SUBJECTS for style in STYLES]
    clean = found.tensor(pairs)
    mine = slice(rank * plan.batch // ranks, (rank + 1) * plan.batch // ranks)

    def save(step: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        kept = {"module": module.state_dict(), "optimizer": optimizer.state_dict(), "step": step}
        torch.save(kept | {"average": average.state_dict()}, state.with_suffix(".part"))
        state.with_suffix(".part").replace(state)
        average.store(parameters)
        average.copy_to(parameters)
        pipe.save_pretrained(folder / "pipeline")
        average.restore(parameters)

    began = saved = time.monotonic()
    losses: list[float] = []
    for step in range(first, plan.steps):
        for group in optimizer.param_groups:
            group["lr"] = plan.rate(step)
        generator, chance = torch.Generator().manual_seed(step), random.Random(step)
        noise = torch.randn(plan.batch, *clean.shape[1:], generator=generator)
        sigma = flow.draw_sigma(plan.batch, generator)
        seen = picked(step, plan.batch, len(pairs))
        captions = [training_caption(*pairs[index], chance) for index in seen]
        loss = parallel(captions[mine], clean[seen[mine]], noise[mine], sigma[mine])
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        average.step(parameters)
        losses.append(loss.item())
        if rank == 0 and (step + 1) % REPORT == 0:
            spent = time.monotonic() - began
            speed = (step + 1 - first) * plan.batch / spent
            mean = sum(losses[-REPORT:]) / len(losses[-REPORT:])
            print(f"step {step + 1} loss {mean:.4f} {speed:.1f} pictures/s {spent:.0f} s", flush=True)
            if time.monotonic() - saved > every:
                save(step + 1)
                saved = time.monotonic()
    if rank == 0:
        save(plan.steps)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=WORK, help="folder of the pictures; the run goes to its `base`")
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--cooldown", type=int, default=600, help="the last steps, in which the rate falls")
    parser.add_argument("--weights", type=Path, help="begin from this pipeline's weights instead of random ones")
    parser.add_argument("--every", type=float, default=120, help="seconds between checkpoints")
    args = parser.parse_args()
    torch.set_num_threads(1)
    if "WORLD_SIZE" in os.environ:
        dist.init_process_group("gloo")
    train(pictures(args.work), args.work / "base", Plan(args.steps, args.cooldown), args.weights, args.every)
    if dist.is_initialized():
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
