"""Two LoRA files and a pipeline in, the zipped LoRA out as a file."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..files import write_lora
from ..files.hashing import sha256
from ..hosts.diffusers import PipelineModel
from ..jobs.job import Job, LoadedLora, Remark
from ..jobs.pair import Saving
from ..jobs.provenance import Origin, provenance
from ..request.request import FusionRequest, Source
from .fusing import loaded
from .zip_layers import Scope
from .zip_training import Recipe, Stepped
from .zipping import Drawing, Lessons, Zipped, zip_loras

STATE = ".training"
"""How the name of the file ends that a run that was stopped goes on from, in place of the output's own ending."""


def zip_files(
    pipe: Any,
    content: Path,
    style: Path,
    saving: Saving,
    lessons: Lessons,
    recipe: Recipe,
    scope: Scope,
    drawing: Drawing,
    stepped: Stepped,
) -> tuple[Zipped, Sequence[Remark]]:
    """Write the file, which appears once it is complete. Returns what it holds, and what is remarkable about it.

    A run that was stopped goes on if it is called again as it was. Raises what `zip_loras` raises.
    """
    model = PipelineModel(pipe)
    loras = loaded(model, content), loaded(model, style)
    request = FusionRequest.of((Source(content.stem),), (Source(style.stem),), method="direct")
    job = Job(request, loras[:1], loras[1:], model.blocks())
    job.check()
    state = saving.output.with_suffix(STATE)
    zipped = zip_loras(pipe, model, loras[0].weights, loras[1].weights, lessons, recipe, scope, state, drawing, stepped)
    metadata = {
        **provenance(request, _origin(content, loras[0]), _origin(style, loras[1]), model.family),
        "nplora_method": "zip",
        **_told(lessons, recipe, scope),
    }
    layers = zipped.fused.deltas.items()
    write_lora(saving.output, layers, saving.dtype, model.family, metadata, saving.spelling)
    state.unlink(missing_ok=True)
    return zipped, job.remarks(zipped.fused.summary, None)


def _origin(path: Path, lora: LoadedLora) -> Origin:
    return Origin(path.stem, sha256(path), {name: str(value) for name, value in lora.metadata.items()})


def _told(lessons: Lessons, recipe: Recipe, scope: Scope) -> Mapping[str, str]:
    """How the mergers were trained."""
    pictures = {side: len(found) for side in ("content", "style") if (found := getattr(lessons, f"{side}_pictures"))}
    return {
        "nplora_lr": f"{recipe.lr:g}",
        "nplora_steps": str(recipe.steps),
        "nplora_alike": f"{recipe.alike:g}",
        "nplora_seed": str(recipe.seed),
        "nplora_scope": scope,
        "nplora_prompts": json.dumps({"content": list(lessons.content), "style": list(lessons.style)}),
        "nplora_pictures": json.dumps(pictures) if pictures else f"{lessons.drawn} of each drawn from noise",
    }
