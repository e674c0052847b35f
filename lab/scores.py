"""Scores of pictures, and what they add up to over pairs: means, standard errors, paired differences."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, astuple, dataclass, fields
from statistics import fmean, stdev
from typing import Any

import torch
import torch.nn.functional as F

from lab.judge import Judge


@dataclass(frozen=True)
class Score:
    """What judges say of the pictures of one pair by one method, means over pictures and judges."""

    subject: float
    """Cosine to the subject."""
    style: float
    """Cosine to the style."""
    harmonic: float
    """S_harm, the harmonic mean of both cosines of a picture."""
    names_subject: float
    names_style: float
    names_both: float
    """Share of the pictures whose subject and style are named right."""
    distance: float
    """Root mean square difference to the true picture, in blocks of 2 x 2 pixels; black to white is 2."""


@dataclass(frozen=True)
class Entry:
    """One method on one pair of LoRAs."""

    subject: str
    style: str
    seeds: tuple[int, int]
    """The content's and the style's training seed."""
    method: str
    score: Score

    @property
    def pair(self) -> tuple[str, str, int, int]:
        return (self.subject, self.style, *self.seeds)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> Entry:
        return cls(**{**found, "seeds": tuple(found["seeds"]), "score": Score(**found["score"])})


@dataclass(frozen=True)
class Estimate:
    """A mean over pairs, and its standard error."""

    mean: float
    error: float

    @classmethod
    def over(cls, values: Sequence[float]) -> Estimate:
        return cls(fmean(values), stdev(values) / len(values) ** 0.5 if len(values) > 1 else float("nan"))

    @property
    def is_sure(self) -> bool:
        """Further from 0 than two standard errors: what it takes to call one thing better than another."""
        return abs(self.mean) > 2 * self.error

    def __str__(self) -> str:
        return f"{self.mean:.3f} ± {self.error:.3f}"


def judged(judges: Iterable[Judge], images: torch.Tensor, subject: str, style: str, truth: torch.Tensor) -> Score:
    """Score of pictures (n, 3, size, size) that should show the subject in the style, as the truth (3, ...) does."""
    difference = F.avg_pool2d(images, 2) - F.avg_pool2d(truth[None], 2)
    distance = difference.square().mean((1, 2, 3)).sqrt().mean().item()
    rows = []
    for judge in judges:
        verdict = judge.verdict(images, subject, style)
        values = (verdict.subject, verdict.style, verdict.harmonic)
        named = (verdict.names_subject, verdict.names_style, verdict.names_both)
        rows.append([value.float().mean().item() for value in (*values, *named)])
    return Score(*map(fmean, zip(*rows)), distance)


def by_pair(entries: Iterable[Entry], method: str) -> dict[tuple[str, str, int, int], Score]:
    return {entry.pair: entry.score for entry in entries if entry.method == method}


def means(entries: Sequence[Entry], method: str) -> dict[str, Estimate]:
    """Every score of a method, over its pairs."""
    rows = list(zip(*map(astuple, by_pair(entries, method).values())))
    return {field.name: Estimate.over(row) for field, row in zip(fields(Score), rows)}


def difference(entries: Sequence[Entry], method: str, other: str) -> Estimate:
    """S_harm of a method less that of another on the same pairs."""
    ours, theirs = by_pair(entries, method), by_pair(entries, other)
    return Estimate.over([ours[pair].harmonic - theirs[pair].harmonic for pair in ours if pair in theirs])


def tuned(entries: Sequence[Entry], is_weights: Callable[[str], bool], label: str) -> list[Entry]:
    """Entries of a method that takes, for each subject, the weights that were best on all other subjects."""
    weights = sorted({entry.method for entry in entries if is_weights(entry.method)})
    found = []
    for subject in sorted({entry.subject for entry in entries}):
        others = [entry for entry in entries if entry.subject != subject]
        best = max(weights, key=lambda method: means(others, method)["harmonic"].mean)
        for entry in entries:
            if entry.subject == subject and entry.method == best:
                found.append(Entry(entry.subject, entry.style, entry.seeds, label, entry.score))
    return found
