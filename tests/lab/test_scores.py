"""Statistics by hand-made numbers, and scores of pictures that are the truth."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
import torch

from lab.judge import Judge
from lab.scores import Entry, Estimate, Score, difference, estimate, gathered, judged, means, tuned


def score(harmonic: float) -> Score:
    return Score(0.5, 0.5, harmonic, 1.0, 1.0, 1.0, 0.1)


def entry(subject: str, method: str, harmonic: float, style: str = "neon", other: float | None = None) -> Entry:
    """What two judges say who agree, unless the other says something else."""
    scores = score(harmonic), score(harmonic if other is None else other)
    return Entry(subject, style, (0, 0), method, scores, noises=(1, 2))


ENTRIES = [
    entry("fox", "direct", 0.4),
    entry("rose", "direct", 0.6),
    entry("fox", "NP 2", 0.5),
    entry("rose", "NP 2", 0.8),
]

FOX, ROSE = ("fox", "neon", 0, 0), ("rose", "neon", 0, 0)


def test_an_estimate_is_a_mean_with_its_standard_error():
    found = Estimate.over({FOX: 1.0, ROSE: 3.0})
    assert (found.mean, found.error, found.count) == (2.0, 1.0, 2)
    assert not found.is_sure
    assert Estimate.over({FOX: 1.0, ROSE: 1.1}).is_sure
    assert math.isnan(Estimate.over({FOX: 1.0}).error)
    assert not Estimate.over({FOX: 1.0}).is_sure
    assert str(Estimate.over({})) == ""


def test_pairs_of_one_subject_or_style_do_not_count_as_many():
    """Cells that a subject alone decides: as sure as by subjects alone, however many styles and seeds there are."""
    by_subject = {"fox": 0.1, "rose": 0.3, "ghost": 0.8}
    styles = ("neon", "duotone", "monotone", "thermal")
    values = {
        (subject, style, seed, 1): value for subject, value in by_subject.items() for style in styles for seed in (0, 2)
    }
    mean = 0.4
    expected = math.sqrt(sum((value - mean) ** 2 for value in by_subject.values()) / 2 / 3)
    found = Estimate.over(values)
    assert (found.mean, found.error) == (pytest.approx(mean), pytest.approx(expected))
    turned = {(style, subject, *seeds): value for (subject, style, *seeds), value in values.items()}
    assert Estimate.over(turned).error == pytest.approx(expected)


def test_clusters_of_both_kinds_add_up():
    """Two effects that have nothing to do with each other: V = V_subject + V_style - V_pair."""
    effects = {"a": -1.0, "b": 0.0, "c": 1.0}
    values = {(one, other, 0, 0): x + y for one, x in effects.items() for other, y in effects.items()}
    alone = 3 / 2 * (3**2 + 0**2 + 3**2) / 9**2
    by_pair = 9 / 8 * sum(value**2 for value in values.values()) / 9**2
    assert alone > by_pair
    assert Estimate.over(values).error == pytest.approx(math.sqrt(2 * alone - by_pair))


def test_seeds_of_one_pair_have_an_error_of_their_own():
    assert Estimate.over({("fox", "neon", 0, 0): 1.0, ("fox", "neon", 1, 1): 3.0}).error == pytest.approx(1.0)


def test_differences_are_of_the_same_noises():
    """Whatever was drawn later for one of the two alone."""
    later = replace(entry("fox", "direct", 0.9), noises=(3, 4))
    drawn = gathered([*ENTRIES, later])
    assert estimate(drawn, "direct").mean == pytest.approx((0.65 + 0.6) / 2)
    assert difference(drawn, "NP 2", "direct").mean == pytest.approx(0.15)
    both = gathered([*ENTRIES, later, replace(entry("fox", "NP 2", 0.8), noises=(3, 4))])
    assert difference(both, "NP 2", "direct").mean == pytest.approx((0 + 0.2) / 2)
    elsewhere = [replace(one, noises=(5,)) if one.method == "direct" else one for one in ENTRIES]
    assert difference(elsewhere, "NP 2", "direct").count == 0


def test_differences_are_paired():
    assert difference(ENTRIES, "NP 2", "direct").mean == pytest.approx(0.15)
    assert difference(ENTRIES, "NP 2", "direct").error == pytest.approx(0.05)
    assert difference(ENTRIES[:3], "NP 2", "direct").mean == pytest.approx(0.1)
    assert difference(ENTRIES, "NP 2", "direct", "subject").mean == 0


def test_a_judge_can_be_asked_alone():
    entries = [entry("fox", "direct", 0.4, other=0.6), entry("fox", "NP 2", 0.5, other=0.9)]
    assert means(entries, "direct")["harmonic"].mean == pytest.approx(0.5)
    assert [difference(entries, "NP 2", "direct", judge=judge).mean for judge in (0, 1)] == [
        pytest.approx(0.1),
        pytest.approx(0.3),
    ]


def test_tuned_weights_are_chosen_on_other_subjects_and_styles():
    """What is best on the same subject or the same style does not count."""
    grid = {
        ("fox", "neon"): (0.1, 0.9),
        ("fox", "duotone"): (0.2, 0.8),
        ("rose", "neon"): (0.3, 0.7),
        ("rose", "duotone"): (0.6, 0.5),
    }
    entries = [
        entry(subject, label, value, style)
        for (subject, style), values in grid.items()
        for label, value in zip(("a", "b"), values)
    ]
    found = {(one.subject, one.style): one for one in tuned(entries, ("a", "b"), "tuned")}
    assert {pair: one.score.harmonic for pair, one in found.items()} == pytest.approx(
        {("fox", "neon"): 0.1, ("fox", "duotone"): 0.8, ("rose", "neon"): 0.7, ("rose", "duotone"): 0.5}
    )
    assert {one.method for one in found.values()} == {"tuned"}
    assert tuned(entries[:4], ("a", "b"), "tuned") == []


def test_pictures_that_were_drawn_in_parts_count_alike():
    first = replace(entry("fox", "direct", 0.4), noises=(1,))
    second = replace(entry("fox", "direct", 0.7), noises=(2, 3))
    again = replace(entry("fox", "direct", 0.9), noises=(3,))
    (whole,) = gathered([first, second, again])
    assert whole.noises == (1, 2, 3)
    assert [one.harmonic for one in whole.scores] == pytest.approx([0.6, 0.6])
    assert len(gathered([first, replace(second, made_of="others")])) == 2


def test_means_are_over_pairs():
    assert means(ENTRIES, "direct")["harmonic"].mean == pytest.approx(0.5)


def test_entries_come_back_from_json():
    assert Entry.from_json(json.loads(json.dumps(ENTRIES[0].to_json()))) == ENTRIES[0]


def test_the_truth_is_no_distance_from_itself():
    judges = [Judge(["fox", "lion"], ["neon", "noto"]).eval() for _ in range(2)]
    truth = torch.rand(3, 48, 48)
    scores = judged(judges, truth.repeat(3, 1, 1, 1), "fox", "neon", truth)
    assert [one.distance for one in scores] == [0, 0]
    assert judged(judges, truth[None] + 0.5, "fox", "neon", truth)[0].distance == pytest.approx(0.5, abs=1e-5)
    cosines = [judge.verdict(truth[None], "fox", "neon").subject.item() for judge in judges]
    assert [one.subject for one in scores] == pytest.approx(cosines, abs=1e-5)
