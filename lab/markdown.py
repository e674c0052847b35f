"""What was measured, as tables in Markdown: in full, and in the README's ten lines."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from lab.rows import DIRECT, SHORT, TUNED, WEIGHTED
from lab.scores import Entry, Estimate, difference, estimate, means, tuned

ByRegime = Mapping[str, Sequence[Entry]]
"""Regime -> its entries, those of tuned weights among them."""

SEEDS = {"different": "each LoRA from a seed of its own", "same": "one seed for content and style"}
"""What a regime is."""

WEIGHT_LABELS = frozenset(row.label for row in WEIGHTED)


def with_tuned(entries: Sequence[Entry]) -> list[Entry]:
    """The entries, and those of weights that were chosen on other subjects and styles."""
    return [*entries, *tuned(entries, WEIGHT_LABELS, TUNED)]


def hindsight(entries: Sequence[Entry]) -> str:
    """The one pair of weights that did best on the very pairs that are reported; empty if none was tried on all."""
    pairs = {entry.pair for entry in entries}
    tried = {label: estimate(entries, label) for label in WEIGHT_LABELS}
    whole = {label: found.mean for label, found in tried.items() if found.count == len(pairs)}
    return max(sorted(whole), key=lambda label: whole[label]) if whole else ""


def full(by_regime: ByRegime) -> str:
    """All rows, a table a regime, and what is better by the rule."""
    parts = []
    for regime, entries in by_regime.items():
        pairs = {entry.pair for entry in entries}
        subjects, styles = ({pair[side] for pair in pairs} for side in (0, 1))
        heading = (
            f"**{regime} seeds** ({SEEDS[regime]}): {len(pairs)} pairs, {len(subjects)} subjects x {len(styles)} "
            f"styles, {_noises(entries)} pictures each"
        )
        parts += [heading, table(entries)]
    return "\n\n".join([*parts, verdict(by_regime), short(by_regime)])


def _noises(entries: Iterable[Entry]) -> str:
    counts = {len(entry.noises) for entry in entries} or {0}
    return str(max(counts)) if len(counts) == 1 else f"{min(counts)} to {max(counts)}"


def table(entries: Sequence[Entry]) -> str:
    """The best S_harm first; a difference of more than two standard errors is bold.

    There are many weights that the tuned ones are chosen from: the best with hindsight alone is shown.
    """
    best = hindsight(entries)
    names = [name for name in dict.fromkeys(one.method for one in entries) if name not in WEIGHT_LABELS or name == best]
    scored = {name: means(entries, name) for name in names}
    judges = range(max((len(entry.scores) for entry in entries), default=0))
    heads = ("", "pairs", "subject", "style", "S_harm", "both named", "distance", "against direct", "by judge")
    rows = []
    for name in sorted(names, key=lambda name: -scored[name]["harmonic"].mean):
        columns = [str(scored[name][column]) for column in ("subject", "style", "harmonic", "names_both", "distance")]
        by_judge = [difference(entries, name, DIRECT.label, judge=judge) for judge in judges]
        rows.append(
            [
                f"{name} (best with hindsight)" if name == best else name,
                str(scored[name]["harmonic"].count),
                *columns,
                against(entries, name, DIRECT.label),
                " / ".join(map(_told, by_judge)) if name != DIRECT.label else "",
                against(entries, name, TUNED),
            ]
        )
    return as_table([*heads, f"against {TUNED}"], rows)


def short(by_regime: ByRegime) -> str:
    """The README's."""
    columns = [
        f"{regime} seeds: {what}" for regime in by_regime for what in ("S_harm", f"against {TUNED}", "both named")
    ]
    rows = []
    for name in SHORT:
        cells = []
        for entries in by_regime.values():
            scored = means(entries, name)
            cells += [str(scored["harmonic"]), against(entries, name, TUNED), _share(scored["names_both"])]
        rows.append([name, *cells])
    return as_table(["", *columns], rows)


def recommended(by_regime: ByRegime) -> list[str]:
    """The rows that beat direct by two standard errors in every regime, nowhere worse than tuned weights by one."""
    names = dict.fromkeys(entry.method for entries in by_regime.values() for entry in entries)

    def holds(name: str, entries: Sequence[Entry]) -> bool:
        direct, best = (difference(entries, name, other) for other in (DIRECT.label, TUNED))
        return direct.mean > 2 * direct.error and best.mean >= -best.error

    return [
        name
        for name in names
        if name not in WEIGHT_LABELS | {DIRECT.label, TUNED} and all(holds(name, one) for one in by_regime.values())
    ]


def verdict(by_regime: ByRegime) -> str:
    """The rule, and what it comes to."""
    found = recommended(by_regime)
    return (
        f"Better than {DIRECT.label} by two standard errors in {' and in '.join(by_regime)} seeds, and nowhere worse "
        f"than {TUNED} by one: {', '.join(found) or 'nothing'}."
    )


def against(entries: Sequence[Entry], name: str, other: str, judge: int | None = None) -> str:
    """How much better a method is than another, by S_harm."""
    return _told(difference(entries, name, other, judge=judge)) if name != other else ""


def _told(found: Estimate) -> str:
    if not found.count:
        return ""
    told = f"{found.mean:+.3f} ± {found.error:.3f}"
    return f"**{told}**" if found.is_sure else told


def _share(estimate: Estimate) -> str:
    return f"{estimate.mean:.2f}" if estimate.count else ""


def as_table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in (heads, ["---"] * len(heads), *rows))
