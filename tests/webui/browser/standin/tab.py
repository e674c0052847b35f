"""A tab of the page: prompts, settings with the extension's scripts among them, what came out."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from typing import Any

import gradio as gr

from tests.hosts.standins.page import PasteField

from .components import FormGroup, FormRow, InputAccordion, ToolButton
from .infotext import Pasting
from .picture import Picture
from .scripts import Runner, ScriptClassData

_numbers = itertools.count(1)


class Tab:
    """`txt2img` or `img2img`, made inside of the tabs that are open."""

    def __init__(self, name: str, found: Sequence[ScriptClassData], extra_networks: Any, pasting: Pasting) -> None:
        self._name = name
        self._scripts = Runner(found, is_img2img=name == "img2img")
        self._extra_networks = extra_networks
        with gr.TabItem(name, id=name, elem_id=f"tab_{name}"):
            self._show_top()
            with gr.Row():
                self._show_settings()
                with gr.Column(variant="panel", elem_id=f"{name}_results"):
                    result = gr.Textbox(label="Result", lines=8, interactive=False, elem_id=f"{name}_result")
        inputs = [self._prompt, self._negative, self._hires, self._hr_prompt, *self._scripts.inputs]
        self._generate.click(self._made, inputs, [result])
        self.fields = [
            PasteField(self._prompt, "Prompt"),
            PasteField(self._negative, "Negative prompt"),
            PasteField(self._hr_prompt, "Hires prompt"),
            *(PasteField(*field) for field in self._scripts.infotext_fields),
        ]
        pasting.connect(self._paste, self._prompt, self.fields)

    def _show_top(self) -> None:
        name = self._name
        with gr.Row(elem_id=f"{name}_toprow"):
            with gr.Column(scale=6, elem_id=f"{name}_prompt_container"):
                self._prompt, self._negative = (
                    gr.Textbox("", label=label, lines=3, show_label=False, elem_id=f"{name}_{part}")
                    for label, part in (("Prompt", "prompt"), ("Negative prompt", "neg_prompt"))
                )
            with gr.Column(scale=1):
                self._generate = gr.Button("Generate", variant="primary", elem_id=f"{name}_generate")
                with gr.Row(elem_id=f"{name}_tools"):
                    self._paste = ToolButton("↙️", tooltip="Read parameters", elem_id="paste")
                    self._send = ToolButton("🖼️", tooltip="Send to img2img", elem_id=f"{name}_send_to_img2img")

    def _show_settings(self) -> None:
        name = self._name
        with gr.Column(variant="compact", elem_id=f"{name}_settings"):
            with FormRow():
                gr.Slider(1, 150, 20, step=1, label="Sampling steps", interactive=True, elem_id=f"{name}_steps")
                gr.Slider(64, 2048, value=512, step=8, label="Width", elem_id=f"{name}_width")
                gr.Slider(1, 8, value=1, step=1, label="Batch size", elem_id=f"{name}_batch_size")
            accordions = gr.Row(elem_id=f"{name}_accordions", elem_classes="accordions")
            with accordions, InputAccordion(False, label="Hires. fix", elem_id=f"{name}_hr") as self._hires:
                self._hr_prompt = gr.Textbox("", label="Hires prompt", lines=3, elem_id=f"{name}_hires_prompt")
            with FormGroup(elem_id=f"{name}_script_container"):
                self._scripts.show()

    def _made(self, prompt: str, negative: str, hires: bool, hr_prompt: str, *args: Any) -> str:
        """Numbered, so that a browser sees two like pictures come."""
        picture = Picture(prompt, negative, self._scripts, args, hr_prompt if hires else None)
        return json.dumps({"number": next(_numbers), **picture.make(self._extra_networks)}, indent=1)

    def connect_send(self, target: Tab) -> None:
        """Let the button take the prompts along to that tab, with whatever the scripts asked for."""
        names = ["Prompt", "Negative prompt", *self._scripts.paste_field_names]
        inputs, outputs = ([part for part, name in tab.fields if name in names] for tab in (self, target))
        self._send.click(lambda *values: values, inputs, outputs, show_progress=False)
