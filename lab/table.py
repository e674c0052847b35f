"""python -m lab.table --regime different: the honest table. Every method on every pair of held-out subject and style.

Draws what is missing, a line of JSON each, and prints the table of what is there. LoRAs are those of train_lora:
`same` pairs are trained from one seed, as the papers' recipes do; `different` ones from a seed each.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path

import torch

from lab import folder
from lab import judge as judges
from lab.controls import controls
from lab.data import Pictures, pictures
from lab.demo import fused
from lab.rows import DIRECT, GRID, MEASURED, weighted
from lab.sample import STEPS, open_pipeline
from lab.scores import Entry, difference, judged, means, tuned
from lab.words import HELD_OUT_STYLES, HELD_OUT_SUBJECTS
from lib_nplora.pipelines import Pair

REGIMES = {"same": ((0, 0),), "different": ((1, 2), (3, 4), (5, 6))}
"""Training seeds of content and style."""

NOISES = range(20000, 20004)
"""Seeds of the pictures of a pair; no training and no choice has seen them."""

WEIGHTED = tuple(weighted(*weights) for weights in GRID)
TUNED = "tuned weights"
ROWS = (*(row for row in MEASURED if row.label != TUNED), *WEIGHTED)


def read(path: Path) -> list[Entry]:
    """What was drawn so far."""
    return [Entry.from_json(json.loads(line)) for line in path.read_text().splitlines()] if path.exists() else []


def missing(
    work: Path, regime: str, layers: str, there: Sequence[Entry], subjects: Sequence[str], styles: Sequence[str]
) -> Iterator[tuple[str, str, tuple[int, int], Path, Path]]:
    """(subject, style, seeds, content, style) of pairs whose LoRAs are trained and that lack a row."""
    done = {(*entry.pair, entry.method) for entry in there}
    for seeds, subject, style in product(REGIMES[regime], subjects, styles):
        files = [folder.lora(work, name, layers, seed) for name, seed in zip((subject, style), seeds)]
        lacks = any((subject, style, *seeds, row.label) not in done for row in ROWS)
        if lacks and all(file.exists() for file in files):
            yield subject, style, seeds, *files


def draw_missing(work: Path, found: Pictures, panel: Sequence[judges.Judge], args: argparse.Namespace) -> list[Entry]:
    path = work / f"table-{args.regime}-{args.layers}.jsonl"
    entries = read(path)
    pipe = open_pipeline(args.base or folder.base(work))
    for subject, style, seeds, content, look in missing(
        work, args.regime, args.layers, entries, args.subjects, args.styles
    ):
        pair, truth = Pair(pipe, content, look), found.tensor([(subject, style)])[0]
        done = {entry.method for entry in entries if entry.pair == (subject, style, *seeds)}
        for row in ROWS:
            if row.label not in done:
                images = fused(pipe, pair, subject, row, NOISES, args.steps)
                entry = Entry(subject, style, seeds, row.label, judged(panel, images, subject, style, truth))
                entries.append(entry)
                with path.open("a") as file:
                    file.write(json.dumps(entry.to_json()) + "\n")
        print(f"{subject} {style} {seeds}", flush=True)
    return entries


def table(entries: Sequence[Entry]) -> str:
    """In Markdown, the best S_harm first; a difference of more than two standard errors is bold."""
    labels = {row.label for row in WEIGHTED}
    whole = [*entries, *tuned(entries, lambda method: method in labels, TUNED)]
    names = [name for name in dict.fromkeys(entry.method for entry in whole) if name not in labels]
    scored = {name: means(whole, name) for name in names}
    lines = [
        "| | subject | style | S_harm | both named | distance | against direct | against tuned weights |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name in sorted(names, key=lambda name: -scored[name]["harmonic"].mean):
        columns = [str(scored[name][column]) for column in ("subject", "style", "harmonic", "names_both", "distance")]
        against = [difference(whole, name, other) if name != other else None for other in (DIRECT.label, TUNED)]
        told = [f"**{one}**" if one and one.is_sure else str(one or "") for one in against]
        lines.append(f"| {' | '.join([name, *columns, *told])} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=folder.WORK)
    parser.add_argument("--base", type=Path, help="the pipeline's folder")
    parser.add_argument("--regime", choices=REGIMES, default="different")
    parser.add_argument("--layers", default="all")
    parser.add_argument("--subjects", nargs="+", default=HELD_OUT_SUBJECTS)
    parser.add_argument("--styles", nargs="+", default=HELD_OUT_STYLES)
    parser.add_argument("--steps", type=int, default=STEPS)
    args = parser.parse_args()
    torch.set_num_threads(1)
    panel = [judges.load(path) for path in folder.judges(args.work)]
    with controls():
        entries = draw_missing(args.work, pictures(args.work), panel, args)
    print(f"{len({entry.pair for entry in entries})} pairs, {len(panel)} judges\n\n{table(entries)}")


if __name__ == "__main__":
    main()
