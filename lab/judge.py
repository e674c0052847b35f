"""python -m lab.judge: train the judge, a small network that names the subject and the style of a picture.

It saw every subject in every style, held-out ones too, and is only a judge. Two judges with seeds of their own keep a
method from looking good for what one of them happens to like.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from lab import folder
from lab.data import Pictures, pictures

WIDTHS = (3, 32, 64, 128, 160)
SHARPNESS = 12
"""Cosines are multiplied by this before the softmax."""

BATCH = 64
RATE = 2e-3


class Judge(nn.Module):
    """Four strided convolutions; an embedding of the subject, from where things are, and one of the style, from what
    is there."""

    def __init__(self, subjects: Sequence[str], styles: Sequence[str]) -> None:
        super().__init__()
        self.subjects, self.styles = tuple(subjects), tuple(styles)
        self.stages = nn.ModuleList(
            nn.Sequential(nn.Conv2d(before, after, 3, 2, 1), nn.GroupNorm(8, after), nn.GELU())
            for before, after in pairwise(WIDTHS)
        )
        self.subject = nn.Linear(WIDTHS[-1] * 9, 64)
        self.style = nn.Linear(WIDTHS[-1] + WIDTHS[-2], 32)
        self.subject_classes = nn.Parameter(torch.randn(len(self.subjects), 64))
        self.style_classes = nn.Parameter(torch.randn(len(self.styles), 32))

    def embed(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Unit vectors of subject (n, 64) and style (n, 32) of pictures (n, 3, 48, 48) from -1 to 1."""
        features = [images]
        for stage in self.stages:
            features.append(stage(features[-1]))
        fine, coarse = features[-2:]
        where = F.dropout(coarse.flatten(1), 0.2, self.training)
        what = torch.cat([coarse.mean((2, 3)), fine.std((2, 3))], 1)
        return F.normalize(self.subject(where), dim=1), F.normalize(self.style(what), dim=1)

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Cosine of each picture to each subject and to each style."""
        subject, style = self.embed(images)
        subjects, styles = F.normalize(self.subject_classes, dim=1), F.normalize(self.style_classes, dim=1)
        return subject @ subjects.T, style @ styles.T

    @torch.no_grad()
    def verdict(self, images: torch.Tensor, subject: str, style: str) -> Verdict:
        """What it says of pictures that should show the subject in the style."""
        subjects, styles = self(images)
        row, column = self.subjects.index(subject), self.styles.index(style)
        return Verdict(subjects[:, row], styles[:, column], subjects.argmax(1) == row, styles.argmax(1) == column)


@dataclass(frozen=True)
class Verdict:
    """One number a picture each."""

    subject: torch.Tensor
    """Cosine to the subject."""
    style: torch.Tensor
    """Cosine to the style."""
    names_subject: torch.Tensor
    """Whether no other subject is nearer."""
    names_style: torch.Tensor
    """Whether no other style is nearer."""

    @property
    def harmonic(self) -> torch.Tensor:
        """S_harm: the harmonic mean of both cosines, 0 where one is not positive."""
        subject, style = self.subject.clamp(min=1e-6), self.style.clamp(min=1e-6)
        return 2 / (1 / subject + 1 / style)

    @property
    def names_both(self) -> torch.Tensor:
        return self.names_subject & self.names_style


def augment(images: torch.Tensor) -> torch.Tensor:
    """Turned, scaled, moved, blurred and made noisy at random."""
    count = len(images)
    size, turn = 1 + 0.12 * torch.randn(count), 0.1 * torch.randn(count)
    place = torch.zeros(count, 2, 3)
    place[:, 0, 0] = place[:, 1, 1] = size * turn.cos()
    place[:, 1, 0] = turn.sin()
    place[:, 0, 1] = -turn.sin()
    place[:, :, 2] = 0.06 * torch.randn(count, 2)
    grid = F.affine_grid(place, list(images.shape), align_corners=False)
    moved = F.grid_sample(images, grid, padding_mode="border", align_corners=False)
    blurred = torch.rand(count, 1, 1, 1) < 0.3
    moved = torch.where(blurred, F.avg_pool2d(moved, 3, 1, 1), moved)
    return moved + 0.12 * torch.rand(count, 1, 1, 1) * torch.randn_like(moved)


def train(found: Pictures, steps: int, seed: int) -> Judge:
    torch.manual_seed(seed)
    judge = Judge(found.subjects, found.styles).to(memory_format=torch.channels_last)
    truth = torch.cartesian_prod(torch.arange(len(found.subjects)), torch.arange(len(found.styles)))
    clean = found.tensor([(found.subjects[subject], found.styles[style]) for subject, style in truth.tolist()])
    optimizer = torch.optim.AdamW(judge.parameters(), RATE, weight_decay=0.05)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = RATE * min(1, 2 * (1 - step / steps))
        picked = torch.randint(len(clean), (BATCH,))
        answers = judge(augment(clean[picked]).contiguous(memory_format=torch.channels_last))
        loss = sum(
            F.cross_entropy(SHARPNESS * answer, truth[picked, side], label_smoothing=0.05)
            for side, answer in enumerate(answers)
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if (step + 1) % 200 == 0:
            print(f"step {step + 1} loss {loss.item():.3f}", flush=True)
    judge.eval()
    with torch.no_grad():
        rates = [
            (answer.argmax(1) == truth[:, side]).float().mean() for side, answer in enumerate(judge(augment(clean)))
        ]
    print(f"names {rates[0]:.1%} of subjects and {rates[1]:.1%} of styles, on true pictures moved and made noisy")
    return judge


def save(judge: Judge, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    words = {"subjects": " ".join(judge.subjects), "styles": " ".join(judge.styles)}
    save_file({key: value.half().contiguous() for key, value in judge.state_dict().items()}, path, words)


def load(path: Path) -> Judge:
    with safe_open(path, "pt") as file:
        words = file.metadata()
    judge = Judge(words["subjects"].split(), words["styles"].split())
    judge.load_state_dict({key: value.float() for key, value in load_file(path).items()})
    return judge.eval().requires_grad_(False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=folder.WORK)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=7)
    args = parser.parse_args()
    torch.set_num_threads(1)
    save(train(pictures(args.work), args.steps, args.seed), folder.judge(args.work, args.seed))


if __name__ == "__main__":
    main()
