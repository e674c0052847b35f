"""The panel's fold in which a fusion is saved as a LoRA."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import gradio as gr

from ..files import DTYPES, EXACT, SPELLINGS, parse_size
from ..findings.said import say, translated
from ..jobs.job import PLAIN_MERGE
from ..jobs.pair import FileFusion, Saving, losses_told
from .parts import Parts, row
from .rest_errors import shown
from .saving import save
from .words import of_language, remarks
from .work import PROGRESS, known_host, others, request_of, shown_on, told

USUAL = "usual"
"""The spelling that the model's LoRAs mostly have."""


def make(parts: Parts) -> None:
    with gr.Accordion("Save as a LoRA", open=False, **parts.at("save_fold")):
        with row():
            parts.add(
                gr.Textbox,
                "output",
                value="",
                label="New LoRA",
                info="name of the file to save",
                max_lines=1,
                min_width=200,
            )
            parts.add(
                gr.Dropdown,
                "size",
                choices=[EXACT, "32", "99%"],
                value=EXACT,
                label="Size",
                info="highest rank, or share kept",
                allow_custom_value=True,
                min_width=120,
            )
            parts.add(
                gr.Dropdown,
                "dtype",
                choices=list(DTYPES),
                value="fp16",
                label="Number format",
                info="fp16 is usual",
                min_width=120,
            )
            parts.add(
                gr.Dropdown,
                "spelling",
                choices=[USUAL, *SPELLINGS],
                value=USUAL,
                label="Layer names",
                info="usual: as both files have them",
                min_width=120,
            )
            parts.add(gr.Button, "save", value="Save as LoRA", scale=1, min_width=160)
        parts.add(gr.Textbox, "saved", value="", label="Saved", interactive=False)


def join(parts: Parts) -> None:
    """Let the button save."""
    how = [parts[name] for name in ("output", "size", "dtype", "spelling")]
    parts["save"].click(_saved, inputs=[*parts.held.values(), *how], outputs=[parts["saved"]])


def _saved(progress: Any = PROGRESS, *args: Any) -> str:
    """What Save says. Gradio counts a starred argument as one, so `progress` stands first."""

    def saving() -> str:
        request = request_of(args)
        output, size, dtype, spelling = others(args)
        chosen = None if spelling == USUAL else spelling
        how = partial(Saving, dtype=dtype, size=parse_size(str(size or "")), spelling=chosen)
        saved = save(known_host(), request, (output or "").strip(), how, shown_on(progress))
        words = of_language()
        where = say("<lora:{name}:1> is in {file}.", name=saved.file.stem, file=str(saved.file)).told(words)
        return shown("\n".join([where, *_told_of(saved.fusion, words)]))

    return told(saving, lambda sentence: sentence)


def _told_of(fusion: FileFusion, words: Mapping[str, str]) -> Sequence[str]:
    lost = [f"{translated(losses_told(fusion), words)}."] if fusion.losses else []
    plain = [translated(PLAIN_MERGE, words)] if fusion.merges_plainly else []
    return [*lost, *plain, *remarks(fusion, words)]
