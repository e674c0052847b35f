"""python -m lab.table1 --model SDXL_DIR --pairs DIR --clip DIR --dino DIR: the papers' Table I, with honest controls.

Trains the LoRAs that are not there, draws every pair by every row, scores the pictures, and writes table1.json,
table1.md and table1.tex. A run that was stopped goes on if it is started again as it was. lab/README.md describes the
folder of pairs.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from tqdm import tqdm

from lab import markdown
from lab.controls import controls
from lab.drawn import Drawn
from lab.rows import DIRECT, KLORA, MEASURED, WEIGHTED, Row
from lab.table import NOISES, REGIMES, part
from lab.table1 import dreambooth, report
from lab.table1.drawing import Studio, Wanted
from lab.table1.eyes import ClipAndDino, JudgeInPlace, Reading, Scorer
from lab.table1.sides import Side, read_pairs
from lib_nplora.errors import FileError, MismatchError, NotFoundError, NploraError, RequestError
from lib_nplora.files import replacing
from lib_nplora.pipelines.opening import best_device, class_in, open_pipeline, usual_dtype

SDXL, MINIATURE = "StableDiffusionXLPipeline", "MiniPipeline"

USUAL = (
    DIRECT.label, "NP 0.5", "NP hard", KLORA.label, "random subspace", "content shrunk", "balance layer",
    *(row.label for row in WEIGHTED),
)  # fmt: skip
"""The rows of the papers that two files are enough for, the controls, and the weights to choose from."""


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        "python -m lab.table1", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--model", type=Path, required=True, help="folder of SDXL, as diffusers saves pipelines")
    made.add_argument("--pairs", type=Path, required=True, help="folder that holds content/NAME and style/NAME")
    made.add_argument(
        "--clip", type=Path, nargs="+", default=[], help="folder of a CLIP; of several, each with its DINO"
    )
    made.add_argument("--dino", type=Path, nargs="+", default=[], help="folder of a DINO or DINOv2, one for each CLIP")
    made.add_argument(
        "--judge", type=Path, nargs="+", help="the miniature's judges in place of both, for its own folder"
    )
    made.add_argument("--out", type=Path, default=Path("table1"), help="folder for LoRAs, pictures and tables")
    made.add_argument("--regimes", nargs="+", choices=REGIMES, default=list(REGIMES))
    made.add_argument("--trainings", type=int, choices=(1, 2, 3), default=1, help="pairs of training seeds a regime")
    made.add_argument("--only", nargs="+", default=["*"], metavar="SUBJECT/STYLE", help="those pairs alone: 'dog/*'")
    made.add_argument("--count", type=int, default=32, help="pairs; of more than that, so many at random")
    made.add_argument(
        "--rows", nargs="+", default=USUAL, metavar="LABEL", help="those alone: direct 'NP *' 'weights *'"
    )
    made.add_argument(
        "--noises", type=int, choices=range(1, len(NOISES) + 1), default=10, help="pictures a pair and row"
    )
    made.add_argument("--steps", type=int, default=50, help="of a picture")
    made.add_argument("--train-steps", type=int, default=dreambooth.Recipe.steps)
    made.add_argument("--rate", type=float, default=dreambooth.Recipe.rate, help="of training")
    made.add_argument("--size", type=int, help="pixels of a training picture's side; by default those of the model")
    made.add_argument("--dtype", choices=("fp32", "bf16"), help="of the model; by default what suits the device")
    made.add_argument(
        "--part", type=part, default=(1, 1), metavar="I/N", help="of the pairs, every Nth from the Ith on"
    )
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """Returns 0; 2 after one line on stderr; 130 if the user stopped it."""
    arguments = parser().parse_args(argv)
    try:
        with controls():
            run(arguments)
    except NploraError as error:
        print("table1:", " ".join(str(error).split()), file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


def run(arguments: argparse.Namespace) -> None:
    """Draws what is missing, and writes the tables. Raises NploraError."""
    check_model(arguments.model, MINIATURE if arguments.judge else SDXL)
    pairs = read_pairs(arguments.pairs, arguments.only, arguments.count)
    pairs = pairs[arguments.part[0] - 1 :: arguments.part[1]]
    rows = chosen(arguments.rows)
    scorers = open_scorers(arguments)
    dtype = arguments.dtype or ("bf16" if usual_dtype(best_device()) == "bf16" else "fp32")
    pipe = open_pipeline(arguments.model, dtype, "lab.model.pipeline.MiniPipeline" if arguments.judge else None)
    pipe.set_progress_bar_config(disable=True)
    arguments.out.mkdir(parents=True, exist_ok=True)
    shared = [*model_files(arguments.model), *(path for scorer in scorers for path in scorer.files)]
    by_regime = {}
    for regime in arguments.regimes:
        wanted = [
            Wanted.of(content, style, seeds, arguments.out / "loras")
            for seeds in REGIMES[regime][: arguments.trainings]
            for content, style in pairs
        ]
        for one in wanted:
            for side, seed in zip((one.content, one.style), one.trained.seeds):
                train_missing(pipe, side, seed, arguments)
        there = Drawn(arguments.out / f"{regime}.jsonl", shared, (arguments.steps, dtype), Reading)
        studio = Studio(pipe, scorers, there, arguments.out / "pictures", arguments.steps)
        studio.draw_missing(wanted, rows, arguments.noises)
        labels = {row.label for row in rows}
        entries = [one for one in there.entries([one.trained for one in wanted]) if one.method in labels]
        by_regime[regime] = markdown.with_tuned(entries)
    protocol = {"model": arguments.model.name, "steps": arguments.steps, "dtype": dtype, "noises": arguments.noises}
    tables = report.parts(by_regime, scorers)
    texts = {"json": report.as_json(tables, protocol), "md": report.as_markdown(tables), "tex": report.as_latex(tables)}
    for ending, text in texts.items():
        with replacing(arguments.out / f"table1.{ending}") as path:
            path.write_text(text, encoding="utf-8")
    print(texts["md"])


def check_model(folder: Path, expected: str) -> None:
    """Raises FileError, MismatchError for a pipeline of another class."""
    named = class_in(folder)
    if named != expected:
        works = {SDXL: "name a folder of SDXL", MINIATURE: "judges see the miniature's pictures alone"}[expected]
        raise MismatchError(f"'{folder}' holds a {named}, not a {expected}: {works}")


def model_files(folder: Path) -> list[Path]:
    """Those of the pipeline's parts."""
    return sorted(path for path in folder.glob("*/*") if path.suffix in (".safetensors", ".bin", ".json"))


def chosen(patterns: Sequence[str]) -> list[Row]:
    """Rows that two files are enough for. Raises NotFoundError if none is called so."""
    able = [row for row in MEASURED if not row.trained]
    found = [row for row in able if any(fnmatchcase(row.label, pattern) for pattern in patterns)]
    if not found:
        raise NotFoundError(
            f"no row is called {' or '.join(patterns)}; there are {', '.join(row.label for row in able)}"
        )
    return found


def open_scorers(arguments: argparse.Namespace) -> list[Scorer]:
    """One for each CLIP with its DINO, or for each judge. Raises FileError, RequestError."""
    if arguments.judge:
        return [JudgeInPlace(path) for path in arguments.judge]
    if not arguments.clip or len(arguments.clip) != len(arguments.dino):
        raise RequestError(
            f"{len(arguments.clip)} --clip and {len(arguments.dino)} --dino are given: pictures are scored by one "
            "of each, or by as many of the one as of the other"
        )
    return [ClipAndDino(clip, dino, best_device()) for clip, dino in zip(arguments.clip, arguments.dino)]


def train_missing(pipe: Any, side: Side, seed: int, arguments: argparse.Namespace) -> None:
    """Trains the LoRA if neither the user has it nor a run before made it. Raises FileError."""
    path = side.lora(seed, arguments.out / "loras")
    if path.is_file():
        return
    if arguments.judge:
        raise FileError(
            f"there is no '{side.folder / path.name}': python -m lab.train_lora trains the miniature's LoRAs"
        )
    size = arguments.size or pipe.default_sample_size * pipe.vae_scale_factor
    recipe = dreambooth.Recipe(arguments.train_steps, arguments.rate, size, seed)
    with tqdm(total=recipe.steps, desc=f"{side.name}, seed {seed}", leave=False, disable=None) as bar:
        dreambooth.train(pipe, side, recipe, path, lambda done, loss: bar.update(done - bar.n))


if __name__ == "__main__":
    sys.exit(main())
