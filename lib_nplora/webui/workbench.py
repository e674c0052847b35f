"""The panel's lower part: what the two LoRAs do to each other, and their fusion saved as a LoRA."""

from __future__ import annotations

import base64
import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeVar

import gradio as gr

from ..errors import HostError, NploraError
from ..files import DTYPES, EXACT, SPELLINGS, parse_size
from ..findings.plots import png
from ..findings.sentences import findings
from ..hosts.protocol import Host
from ..jobs.job import Progress
from ..jobs.pair import PLAIN_MERGE, FileFusion, Saving, inspect_files, losses
from ..methods.selection import MOST_STEPS, USUAL_STEPS
from ..request.request import FusionRequest
from ..request.tag import format_tag
from . import running
from .fields import PanelState, fields
from .rest_errors import shown
from .saving import file_pair, save

logger = logging.getLogger("nplora")

USUAL = "usual"
"""The spelling that the model's LoRAs mostly have."""

PROGRESS = gr.Progress()
"""What Gradio puts the bar of the event at hand in the place of."""

T = TypeVar("T")


def build(tab: str, held: dict[str, Any], at: Callable[[str], dict[str, str]]) -> None:
    """Make it, inside whatever Gradio block is open.

    tab
        Whose sampling steps count, `txt2img` or `img2img`.
    held
        The panel's components, by the names of its values, in their order.
    at
        Name -> the arguments that give a component its place.
    """
    row = {"elem_classes": ["nplora-row"]}
    parts: dict[str, Any] = {}
    with gr.Accordion("Inspect this pair, or save it as a LoRA", open=False, **at("workbench")):
        inspect = gr.Button("Inspect", **at("inspect"))
        parts["findings"] = gr.Textbox(
            "",
            label="What the two do to each other (chance: what unrelated LoRAs share)",
            lines=5,
            max_lines=20,
            interactive=False,
            **at("findings"),
        )
        parts["steps"] = gr.Number(USUAL_STEPS, label="steps", elem_classes=["nplora-hidden"], **at("steps"))
        picture = gr.HTML("", **at("picture"))
        with gr.Row(**row):
            parts["output"] = gr.Textbox(
                "", label="New LoRA", info="name of the file to save", max_lines=1, min_width=200, **at("output")
            )
            parts["size"] = gr.Dropdown(
                [EXACT, "32", "99%"],
                value=EXACT,
                label="Size",
                info="highest rank, or share kept",
                allow_custom_value=True,
                min_width=120,
                **at("size"),
            )
            parts["dtype"] = gr.Dropdown(
                list(DTYPES), value="fp16", label="Number format", info="fp16 is usual", min_width=120, **at("dtype")
            )
            parts["spelling"] = gr.Dropdown(
                [USUAL, *SPELLINGS],
                value=USUAL,
                label="Layer names",
                info="usual: as both files have them",
                min_width=120,
                **at("spelling"),
            )
            button = gr.Button("Save as LoRA", scale=1, min_width=160, **at("save"))
        parts["saved"] = gr.Textbox("", label="Saved", interactive=False, **at("saved"))
    inputs = list(held.values())
    asked = [*inputs, parts["steps"]]
    # Gradio hands the outputs' values over after the inputs'.
    js = f"(...values) => nploraSteps('{tab}', values.slice(0, {len(asked)}))"
    inspect.click(_inspected, _js=js, inputs=asked, outputs=[parts["findings"], picture])
    how = [parts[name] for name in ("output", "size", "dtype", "spelling")]
    button.click(_saved, inputs=[*inputs, *how], outputs=[parts["saved"]])
    for part in parts.values():
        part.do_not_save_to_config = True


def _inspected(progress: Any = PROGRESS, *args: Any) -> tuple[str, str]:
    """What Inspect shows. Gradio counts a starred argument as one, so `progress` stands first."""

    def inspect() -> tuple[str, str]:
        request = _request(args)
        fusion = inspect_files(file_pair(_host(), request), _shown_on(progress))
        steps = min(max(int(args[len(fields())]), 1), MOST_STEPS)
        told = f"{format_tag(request)}, {steps} steps:" if fusion.schedule else f"{format_tag(request)}:"
        lines = [told, *map(str, findings(fusion, request)), *_remarks(fusion)]
        return shown("\n".join(lines)), _image(png(fusion, request, steps))

    return _told(inspect, lambda sentence: (sentence, ""))


def _image(data: bytes) -> str:
    """As HTML. gr.Image would leave it as a file in the host's folder for temporary ones, which Neo may not have."""
    coded = base64.b64encode(data).decode()
    return f'<img src="data:image/png;base64,{coded}" alt="What the two LoRAs do to each other" style="width: 100%">'


def _saved(progress: Any = PROGRESS, *args: Any) -> str:
    """What Save says. See _inspected."""

    def saving() -> str:
        request = _request(args)
        output, size, dtype, spelling = args[len(fields()) :]
        spelled = None if spelling == USUAL else spelling
        how = partial(Saving, dtype=dtype, size=parse_size(str(size or "")), spelled=spelled)
        saved = save(_host(), request, (output or "").strip(), how, _shown_on(progress))
        return shown(" ".join([f"<lora:{saved.file.stem}:1> is in {saved.file}.", *_told_of(saved.fusion)]))

    return _told(saving, lambda sentence: sentence)


def _told_of(fusion: FileFusion) -> Sequence[str]:
    lost = [f"{losses(fusion.sizing)}."] if fusion.sizing.losses else []
    plain = [PLAIN_MERGE] if fusion.merges_plainly else []
    return [*lost, *plain, *_remarks(fusion)]


def _remarks(fusion: FileFusion) -> Sequence[str]:
    return [remark.told("WebUI") for remark in fusion.remarks]


def _request(args: Sequence[Any]) -> FusionRequest:
    return PanelState.from_args(args[: len(fields())]).request()


def _host() -> Host:
    host = running.host()
    if host is None:
        raise HostError("NP-LoRA does not know this WebUI, or its Lora extension is not enabled: see the console")
    return host


def _shown_on(bar: Any) -> Progress:
    """Moves Gradio's bar."""

    def show(done: int, total: int) -> None:
        if done % 10 == 0:
            bar((done, total), unit="layers")

    return show


def _told(work: Callable[[], T], refused: Callable[[str], T]) -> T:
    """What came of it, or the sentence that says why nothing did."""
    try:
        return work()
    except NploraError as error:
        return refused(shown(" ".join(error.told("WebUI").split())))
    except Exception as error:
        logger.exception("the panel failed")
        return refused(f"this should not happen: {type(error).__name__} (details are in the console)")
