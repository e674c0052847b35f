"""Statistics by hand-made numbers, and scores of pictures that are the truth."""

from __future__ import annotations

import json
import math

import pytest
import torch

from lab.judge import Judge
from lab.scores import Entry, Estimate, Score, difference, judged, means, tuned
from lab.table import table


def entry(subject: str, method: str, harmonic: float, style: str = "neon") -> Entry:
    return Entry(subject, style, (0, 0), method, Score(0.5, 0.5, harmonic, 1.0, 1.0, 1.0, 0.1))


ENTRIES = [
    entry("fox", "direct", 0.4),
    entry("rose", "direct", 0.6),
    entry("fox", "NP 2", 0.5),
    entry("rose", "NP 2", 0.8),
    entry("fox", "weights 1, 0.4", 0.9),
    entry("rose", "weights 1, 0.4", 0.2),
    entry("fox", "weights 0.6, 1", 0.1),
    entry("rose", "weights 0.6, 1", 0.7),
]


def test_an_estimate_is_a_mean_with_its_standard_error():
    estimate = Estimate.over([1.0, 3.0])
    assert (estimate.mean, estimate.error) == (2.0, 1.0)
    assert not estimate.is_sure
    assert Estimate.over([1.0, 1.1]).is_sure
    assert math.isnan(Estimate.over([1.0]).error)
    assert not Estimate.over([1.0]).is_sure


def test_differences_are_paired():
    assert difference(ENTRIES, "NP 2", "direct").mean == pytest.approx(0.15)
    assert difference(ENTRIES, "NP 2", "direct").error == pytest.approx(0.05)
    assert difference(ENTRIES[:3], "NP 2", "direct").mean == pytest.approx(0.1)


def test_tuned_weights_are_chosen_on_other_subjects():
    found = {one.subject: one.score.harmonic for one in tuned(ENTRIES, lambda name: name.startswith("weights"), "t")}
    assert found == {"fox": 0.1, "rose": 0.2}


def test_means_are_over_pairs():
    assert means(ENTRIES, "direct")["harmonic"].mean == pytest.approx(0.5)


def test_entries_come_back_from_json():
    assert Entry.from_json(json.loads(json.dumps(ENTRIES[0].to_json()))) == ENTRIES[0]


def test_the_truth_is_no_distance_from_itself():
    judges = [Judge(["fox", "lion"], ["neon", "noto"]).eval() for _ in range(2)]
    truth = torch.rand(3, 48, 48)
    score = judged(judges, truth.repeat(3, 1, 1, 1), "fox", "neon", truth)
    assert score.distance == 0
    assert judged(judges, truth[None] + 0.5, "fox", "neon", truth).distance == pytest.approx(0.5, abs=1e-5)
    cosines = [judge.verdict(truth[None], "fox", "neon").subject.item() for judge in judges]
    assert score.subject == pytest.approx(sum(cosines) / 2, abs=1e-5)


def test_the_table_says_who_is_surely_better():
    text = table([*ENTRIES, entry("fox", "NP 2", 0.6, "duotone"), entry("fox", "direct", 0.4, "duotone")])
    lines = {line.split("|")[1].strip(): line for line in text.splitlines()}
    assert "**0.167 ± 0.033**" in lines["NP 2"]
    assert "tuned weights" in lines
    assert not any(name.startswith("weights") for name in lines)
