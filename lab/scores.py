"""Scores of pictures, and what they add up to over pairs: means, standard errors, paired differences."""

from __future__ import annotations

import math
import operator
from collections import defaultdict
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import asdict, astuple, dataclass, fields, replace
from statistics import fmean
from typing import Any, Protocol

import torch
import torch.nn.functional as F

from lab.judge import Judge

Pair = tuple[str, str, int, int]
"""Subject, style, and the content's and the style's training seed."""


class Graded(Protocol):
    """What one judge, of whatever kind, says of the pictures of one pair by one method."""

    @property
    def harmonic(self) -> float:
        """S_harm."""

    @classmethod
    def mean(cls, scores: Sequence[Any], weights: Sequence[float] = ()) -> Any:
        """Weighted alike unless told otherwise."""

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> Any: ...


@dataclass(frozen=True)
class Score:
    """What a judge says of the pictures of one pair by one method, means over pictures; or the mean of judges."""

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

    @classmethod
    def mean(cls, scores: Sequence[Score], weights: Sequence[float] = ()) -> Score:
        """Weighted alike unless told otherwise."""
        shares = weights or [1.0] * len(scores)
        columns = zip(*map(astuple, scores))
        return cls(*(sum(map(operator.mul, column, shares)) / sum(shares) for column in columns))

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> Score:
        return cls(**found)


COLUMNS = tuple(field.name for field in fields(Score))


@dataclass(frozen=True)
class Entry:
    """One method on one pair of LoRAs."""

    subject: str
    style: str
    seeds: tuple[int, int]
    """The content's and the style's training seed."""
    method: str
    scores: tuple[Graded, ...]
    """One a judge, all of one kind."""
    noises: tuple[int, ...] = ()
    """Seeds of the pictures' noises."""
    made_of: str = ""
    """Stands for all that the pictures and the scores depend on besides."""
    parts: tuple[Entry, ...] = ()
    """What was drawn at different times, if it was."""

    @property
    def pair(self) -> Pair:
        return (self.subject, self.style, *self.seeds)

    @property
    def score(self) -> Any:
        """The judges' mean."""
        return self.scores[0].mean(self.scores)

    def within(self, noises: Collection[int]) -> Entry | None:
        """What came of those noises alone, as far as it was drawn apart from others."""
        there = [part for part in self.parts or (self,) if set(part.noises) <= set(noises)]
        return _joined(there) if there else None

    def to_json(self) -> dict[str, Any]:
        return {name: value for name, value in asdict(self).items() if name != "parts"}

    @classmethod
    def from_json(cls, found: Mapping[str, Any], kind: type[Graded] = Score) -> Entry:
        scores = tuple(kind.from_json(score) for score in found["scores"])
        return cls(**{**found, "seeds": tuple(found["seeds"]), "noises": tuple(found["noises"]), "scores": scores})


def gathered(entries: Iterable[Entry]) -> list[Entry]:
    """One entry for a pair and a method, whose pictures were drawn in parts. Of a noise that was drawn twice, one."""
    parts: dict[Hashable, list[Entry]] = defaultdict(list)
    for entry in entries:
        held = parts[entry.pair, entry.method, entry.made_of]
        if not any(set(entry.noises) & set(other.noises) for other in held):
            held.append(entry)
    return [_joined(held) for held in parts.values()]


def _joined(parts: Sequence[Entry]) -> Entry:
    if len(parts) == 1:
        return parts[0]
    counts = [len(part.noises) for part in parts]
    scores = tuple(column[0].mean(column, counts) for column in zip(*(part.scores for part in parts)))
    noises = tuple(noise for part in parts for noise in part.noises)
    return replace(parts[0], scores=scores, noises=noises, parts=tuple(parts))


@dataclass(frozen=True)
class Estimate:
    """A mean over pairs, and its standard error.

    Pairs of one subject are alike, and so are pairs of one style, so the error is clustered by both (Cameron, Gelbach
    and Miller 2011, Eq. 2.11: V = V_subject + V_style - V_pair, each with its G / (G - 1)); it is never taken to be
    smaller than by either alone.
    """

    mean: float
    error: float
    count: int = 0

    @classmethod
    def over(cls, values: Mapping[Pair, float]) -> Estimate:
        if not values:
            return cls(math.nan, math.nan)
        mean = fmean(values.values())
        off = {pair: value - mean for pair, value in values.items()}
        subject, style, both = (_variance(off, key) for key in (lambda p: p[0], lambda p: p[1], lambda p: p[:2]))
        alone = _variance(off, lambda pair: pair) if len(off) > 1 else math.nan
        error = max(subject + style - both, subject, style, both, 0.0 if len({p[:2] for p in off}) > 1 else alone)
        return cls(mean, math.sqrt(error) if len(off) > 1 else math.nan, len(values))

    @property
    def is_sure(self) -> bool:
        """Further from 0 than two standard errors: what it takes to call one thing better than another."""
        return abs(self.mean) > 2 * self.error

    def __str__(self) -> str:
        return f"{self.mean:.3f} ± {self.error:.3f}" if self.count else ""


def _variance(off: Mapping[Pair, float], cluster: Callable[[Pair], Hashable]) -> float:
    """Variance of the mean, if what stands in one cluster is not independent; 0 if there is but one."""
    sums: dict[Hashable, float] = defaultdict(float)
    for pair, value in off.items():
        sums[cluster(pair)] += value
    groups = len(sums)
    if groups < 2:
        return 0.0
    return groups / (groups - 1) * sum(value**2 for value in sums.values()) / len(off) ** 2


def judged(
    judges: Iterable[Judge], images: torch.Tensor, subject: str, style: str, truth: torch.Tensor
) -> tuple[Score, ...]:
    """One a judge, of pictures (n, 3, size, size) that should show the subject in the style, as the truth (3, ...)."""
    difference = F.avg_pool2d(images, 2) - F.avg_pool2d(truth[None], 2)
    distance = difference.square().mean((1, 2, 3)).sqrt().mean().item()
    scores = []
    for judge in judges:
        verdict = judge.verdict(images, subject, style)
        values = (verdict.subject, verdict.style, verdict.harmonic)
        named = (verdict.names_subject, verdict.names_style, verdict.names_both)
        scores.append(Score(*(value.float().mean().item() for value in (*values, *named)), distance))
    return tuple(scores)


def by_pair(entries: Iterable[Entry], method: str, judge: int | None = None) -> dict[Pair, Any]:
    """What a method came to, by one judge or by all."""
    return {
        entry.pair: entry.score if judge is None else entry.scores[judge] for entry in entries if entry.method == method
    }


def estimate(entries: Sequence[Entry], method: str, column: str = "harmonic", judge: int | None = None) -> Estimate:
    """A score of a method, S_harm unless told otherwise, over its pairs."""
    return Estimate.over({pair: getattr(score, column) for pair, score in by_pair(entries, method, judge).items()})


def means(entries: Sequence[Entry], method: str) -> dict[str, Estimate]:
    """Every score of a method, over its pairs."""
    return {name: estimate(entries, method, name) for name in COLUMNS}


def difference(
    entries: Sequence[Entry], method: str, other: str, column: str = "harmonic", judge: int | None = None
) -> Estimate:
    """A score of a method, S_harm unless told otherwise, less that of another on the same pairs and noises."""
    theirs = {entry.pair: entry for entry in entries if entry.method == other}
    apart = {}
    for entry in entries:
        if entry.method == method and entry.pair in theirs:
            one, another = entry.within(theirs[entry.pair].noises), theirs[entry.pair].within(entry.noises)
            if one and another and set(one.noises) == set(another.noises):
                scores = (each.score if judge is None else each.scores[judge] for each in (one, another))
                apart[entry.pair] = operator.sub(*(getattr(score, column) for score in scores))
    return Estimate.over(apart)


def tuned(entries: Sequence[Entry], weights: Iterable[str], label: str) -> list[Entry]:
    """A method that takes, for each subject and style, the weights that were best on all other subjects and styles.

    weights
        The methods that differ in their weights alone.
    """
    names = set(weights)
    grid = [entry for entry in entries if entry.method in names]
    found = []
    for subject, style in dict.fromkeys((entry.subject, entry.style) for entry in grid):
        elsewhere: dict[str, list[float]] = defaultdict(list)
        for entry in grid:
            if entry.subject != subject and entry.style != style:
                elsewhere[entry.method].append(entry.score.harmonic)
        if elsewhere:
            best = max(sorted(elsewhere), key=lambda method: fmean(elsewhere[method]))
            own = [entry for entry in grid if (entry.subject, entry.style, entry.method) == (subject, style, best)]
            found += [replace(entry, method=label) for entry in own]
    return found
