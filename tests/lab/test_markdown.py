"""The tables say who is surely better, in both regimes, and nothing else."""

from __future__ import annotations

from itertools import product

from lab.markdown import full, recommended, short, table, verdict, with_tuned
from lab.rows import SHORT, TUNED, WEIGHTED
from lab.scores import Entry, Score

SUBJECTS, STYLES = ("fox", "rose", "ghost"), ("neon", "duotone")
LOW, HIGH = WEIGHTED[0].label, WEIGHTED[-1].label


def entries(**gains: float) -> list[Entry]:
    """Pairs on which methods are better than direct by about so much, and two pairs of weights."""
    found = []
    for place, (subject, style) in enumerate(product(SUBJECTS, STYLES)):
        for method, gain in {"direct": 0.0, LOW: -0.1, HIGH: 0.05, **gains}.items():
            harmonic = 0.4 + 0.02 * place + gain * (1 + 0.01 * place)
            score = Score(0.5, 0.5, harmonic, 1.0, 1.0, 0.25, 0.1)
            found.append(Entry(subject, style, (0, 0), method, (score, score), (1, 2)))
    return with_tuned(found)


def lines(text: str) -> dict[str, str]:
    return {line.split("|")[1].strip(): line for line in text.splitlines() if line.startswith("|")}


GOOD = entries(**{"balance down": 0.2, "NP hard": -0.2, "K-LoRA": 0.03})
BAD = entries(**{"balance down": 0.2, "NP hard": 0.3, "K-LoRA": 0.03})


def test_differences_that_are_sure_are_bold():
    found = lines(table(GOOD))
    assert "**+0.205 ± " in found["balance down"]
    assert "**-0.205 ± " in found["NP hard"]
    assert "| **+0.154 ± " in found["balance down"]
    assert found["balance down"].count("+0.205") == 3
    assert TUNED in found
    assert LOW not in found
    assert f"{HIGH} (best with hindsight)" in found
    assert list(found)[2] == "balance down"


def test_only_what_is_better_in_both_regimes_and_no_worse_than_tuned_weights_is_recommended():
    assert recommended({"same": GOOD}) == ["balance down"]
    assert recommended({"same": BAD}) == ["balance down", "NP hard"]
    assert recommended({"different": GOOD, "same": BAD}) == ["balance down"]
    assert "by one: balance down." in verdict({"different": GOOD, "same": BAD})
    assert "by one: nothing." in verdict({"different": entries(**{"K-LoRA": 0.03})})


def test_the_readme_s_table_has_ten_rows_whatever_was_drawn():
    text = short({"different": GOOD, "same": BAD})
    assert text in full({"different": GOOD, "same": BAD})
    assert list(lines(text))[2:] == list(SHORT)
    assert len(SHORT) == 10
    assert {line.count("|") for line in text.splitlines()} == {8}
    assert "0.25" in lines(text)["balance down"]
    assert lines(text)["TIES"].replace(" ", "") == "|TIES|||||||"


def test_nothing_drawn_is_no_error():
    assert "0 pairs" in full({"different": []})
