"""Table I: one JSON, and the same in Markdown and in LaTeX."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lab.markdown import SEEDS, WEIGHT_LABELS, ByRegime, against, as_table, hindsight
from lab.rows import DIRECT, TUNED
from lab.scores import Entry, Estimate, by_pair, difference, estimate
from lab.table1.eyes import Reading, Scorer


@dataclass(frozen=True, eq=False)
class Part:
    """A table: one regime by one scorer.

    reading
        The scorer's place among the readings of an entry.
    """

    heading: str
    regime: str
    scorer: Scorer
    reading: int
    entries: Sequence[Entry]

    @property
    def methods(self) -> list[str]:
        """The best S_harm first; of the weights that tuned ones are chosen from, the best with hindsight alone."""
        best = hindsight(self.entries)
        names = dict.fromkeys(entry.method for entry in self.entries)
        shown = [name for name in names if name not in WEIGHT_LABELS or name == best]
        return sorted(shown, key=lambda name: -self.value(name, "harmonic").mean)

    def value(self, method: str, column: str) -> Estimate:
        return estimate(self.entries, method, column, self.reading)

    def likeness(self, method: str, side: str, eye: int) -> Estimate:
        found = by_pair(self.entries, method, self.reading)
        return Estimate.over({pair: getattr(one, side)[eye] for pair, one in found.items()})

    def of_means(self, method: str) -> float:
        """S_harm of the means over pairs, which is what the papers print."""
        return Reading.mean(list(by_pair(self.entries, method, self.reading).values())).harmonic


def parts(by_regime: ByRegime, scorers: Sequence[Scorer]) -> list[Part]:
    return [
        Part(_heading(regime, entries, scorer), regime, scorer, number, entries)
        for regime, entries in by_regime.items()
        for number, scorer in enumerate(scorers)
    ]


def _heading(regime: str, entries: Sequence[Entry], scorer: Scorer) -> str:
    pairs, counts = {entry.pair for entry in entries}, {len(entry.noises) for entry in entries} or {0}
    noises = str(max(counts)) if len(counts) == 1 else f"{min(counts)} to {max(counts)}"
    return f"{regime} seeds ({SEEDS[regime]}), {scorer.title}: {len(pairs)} pairs, {noises} pictures each"


def _cells(part: Part) -> tuple[list[str], list[list[str]]]:
    eyes = part.scorer.eyes
    likenesses = [(side, number) for number in range(len(eyes)) for side in ("content", "style")]
    heads = ["", "pairs", *(f"{side} {eyes[eye]}" for side, eye in likenesses), "S_arith", "S_harm", "S_harm of means"]
    best = hindsight(part.entries)
    rows = []
    for name in part.methods:
        harmonic = part.value(name, "harmonic")
        rows.append(
            [
                f"{name} (best with hindsight)" if name == best else name,
                str(harmonic.count),
                *(_plain(part.likeness(name, side, eye)) for side, eye in likenesses),
                *map(_plain, (part.value(name, "arithmetic"), harmonic)),
                f"{part.of_means(name):.3f}",
                *(against(part.entries, name, other, part.reading) for other in (DIRECT.label, TUNED)),
            ]
        )
    return [*heads, f"against {DIRECT.label}", f"against {TUNED}"], rows


def _plain(estimate: Estimate) -> str:
    """Without its error where there is none, for one pair."""
    return f"{estimate.mean:.3f}" if math.isnan(estimate.error) else str(estimate)


def as_markdown(parts: Sequence[Part]) -> str:
    """Differences of more than two standard errors are bold."""
    return "\n\n".join(f"**{part.heading}**\n\n{as_table(*_cells(part))}" for part in parts) + "\n"


def as_latex(parts: Sequence[Part]) -> str:
    """Tables for the package booktabs."""
    return "\n".join(_latex(part) for part in parts)


def _latex(part: Part) -> str:
    heads, rows = _cells(part)
    lines = [" & ".join(map(_tex, row)) + r" \\" for row in (heads, *rows)]
    return "\n".join(
        [
            r"\begin{table}",
            rf"\caption{{{_tex(part.heading)}}}",
            rf"\begin{{tabular}}{{l{'r' * (len(heads) - 1)}}}",
            r"\toprule",
            lines[0],
            r"\midrule",
            *lines[1:],
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
            "",
        ]
    )


def _tex(cell: str) -> str:
    """A cell of Markdown in LaTeX."""
    text = re.sub(r"([&%$#_{}])", r"\\\1", cell)
    text = re.sub(r"([+-]?)(\d*\.\d+) ± (\S*\d|nan)", r"$\1\2 \\pm \3$", text)
    text = re.sub(r"S\\_(arith|harm)", r"$S_{\\text{\1}}$", text)
    return re.sub(r"\*\*(.+?)\*\*", r"\\textbf{\1}", text)


def as_json(parts: Sequence[Part], protocol: Mapping[str, Any]) -> str:
    """How it was made, and every number of the tables; null where there is none."""
    tables = [
        {
            "regime": part.regime,
            "scorer": part.scorer.title,
            "pairs": len({entry.pair for entry in part.entries}),
            "rows": [_numbers(part, name) for name in part.methods],
        }
        for part in parts
    ]
    return json.dumps({**protocol, "tables": tables}, indent=1) + "\n"


def _numbers(part: Part, name: str) -> dict[str, Any]:
    likenesses = {
        f"{side} {eye}": _number(part.likeness(name, side, number))
        for number, eye in enumerate(part.scorer.eyes)
        for side in ("content", "style")
    }
    against = {
        f"against {other}": _number(difference(part.entries, name, other, judge=part.reading))
        for other in (DIRECT.label, TUNED)
        if other != name
    }
    sums = {"S_arith": _number(part.value(name, "arithmetic")), "S_harm": _number(part.value(name, "harmonic"))}
    return {"method": name, **likenesses, **sums, "S_harm of means": part.of_means(name), **against}


def _number(estimate: Estimate) -> dict[str, Any]:
    mean, error = (None if math.isnan(value) else value for value in (estimate.mean, estimate.error))
    return {"mean": mean, "error": error, "pairs": estimate.count}
