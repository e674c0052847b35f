"""An extension for tests only: lets a test look at the weights of a running host, and run an inner pass in it."""

from __future__ import annotations

import copy
import hashlib
import sys
from collections import Counter

import gradio as gr
import numpy as np
import torch
from fastapi import Body
from modules import processing, script_callbacks, scripts, shared
from nplora_probe_rounding import measure
from nplora_probe_weights import Originals, keys_of, model, parameters, used, weights
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file

comments: dict[str, int] = {}
inner_pixels: list[str] = []
counts: Counter[str] = Counter()


class Probe(scripts.Script):
    """Runs a second pass after the first, as face fixers do: with no script runner, or with one that lacks ours."""

    def title(self):
        return "NP-LoRA probe"

    def show(self, is_img2img):
        return scripts.AlwaysVisible

    def ui(self, is_img2img):
        return [gr.Textbox(visible=False), gr.Textbox(visible=False)]

    def postprocess_image(self, p, pp, which="", prompt="", *args):
        if not which:
            return
        inner = processing.StableDiffusionProcessingImg2Img(
            sd_model=p.sd_model,
            init_images=[Image.new("RGB", (64, 64), "gray")],
            denoising_strength=0.9,
            prompt=prompt,
            sampler_name="Euler",
            steps=2,
            seed=5,
            width=64,
            height=64,
            cfg_scale=5,
            do_not_save_samples=True,
            do_not_save_grid=True,
        )
        inner.scripts = None
        if which == "other":
            inner.scripts = copy.copy(p.scripts)
            inner.scripts.alwayson_scripts = []
            inner.script_args = ()
        for image in processing.process_images(inner).images:
            inner_pixels.append(hashlib.sha256(np.asarray(image.convert("RGB")).tobytes()).hexdigest())


def compare(reference: str = Body(embed=True)):
    worst = {"unet": 0.0, "te": 0.0}
    outside = 0.0
    originals = Originals()
    with safe_open(reference, "pt") as expected, torch.no_grad():
        names = keys_of({key.rpartition(".")[0] for key in expected.keys()})  # noqa: SIM118
        for key, weight in weights().items():
            original = originals.get(key, weight)
            if original is None:
                continue
            delta = weight.detach().cpu().float() - original.float()
            if key in names:
                name = names[key]
                update = expected.get_tensor(f"{name}.up"), expected.get_tensor(f"{name}.down")
                part = "te" if name.startswith("lora_te") else "unet"
                worst[part] = max(worst[part], relative_error(delta.flatten(1), *update))
            else:
                outside = max(outside, float(delta.abs().max()))
    return {**worst, "outside": outside, "layers": len(names)}


ROWS = 2048


def relative_error(delta, up, down):
    """That of a layer, in float64, some rows at a time: the layers of newer models are large."""
    off = size = 0.0
    for found, rows in zip(delta.split(ROWS), up.split(ROWS)):
        update = rows @ down
        off += float((found.double() - update).square().sum())
        size += float(update.square().sum())
    return off**0.5 / max(size**0.5, 1e-12)


def rounding(reference: str = Body(embed=True)):
    with safe_open(reference, "pt") as expected, torch.no_grad():
        return measure(expected)


def delta(name: str = Body(embed=True), kind: str = Body(embed=True), out: str = Body(embed=True)):
    key = next(iter(keys_of([name]))).removesuffix("weight") + kind
    with torch.no_grad():
        weight = weights()[key].detach().cpu()
        found = weight.float() - Originals().get(key, weight).float()
    save_file({"delta": found.reshape(found.shape[0], -1).contiguous()}, out)


def fingerprint():
    digest = hashlib.blake2b()
    for _, weight in sorted(weights().items()):
        digest.update(weight.detach().cpu().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


class Watch:
    """Looks at layers after each call of the diffusion model, and ends a picture at one of them if it is told to.

    updates
        Layer -> label -> (up, down) of the reference.
    scales
        Layer -> norm of the largest of them.
    """

    def __init__(self):
        self.updates = {}
        self.scales = {}
        self.denoiser = None
        self.reset()

    def reset(self):
        self.calls = []
        self.problems = []
        self.stop = None
        self._unhook()

    def before(self, params):
        """The host's callback before the model is called."""
        self.denoiser = params.denoiser
        if self.stop == ("fail", self.denoiser.step):
            self.stop = None
            self.hook = next(iter(diffusion_model().middle_block)).register_forward_pre_hook(self._fail)

    def after(self, params):
        """The host's callback after the model was called: the only one that all hosts have there."""
        number = self.denoiser.step
        try:
            if self.updates:
                counts = {"number": number, "planned": self.denoiser.total_steps, "steps": self.denoiser.steps}
                self.calls.append({**counts, "found": self._found()})
        except Exception as error:
            self.problems.append(f"{type(error).__name__}: {error}")
        if self.stop and self.stop[1] == number:
            setattr(shared.state, self.stop[0], True)
            self.stop = None

    def _found(self):
        """Layer -> (label of the reference that its weight is nearest to, relative error)."""
        found = {}
        current, originals = parameters(), Originals()
        with torch.no_grad(), torch.autocast("cpu", enabled=False):
            for key, name in keys_of(self.updates).items():
                layer, parameter = current[key]
                original = originals.get(key, getattr(layer, parameter))
                delta = (used(layer, parameter).float() - original.float()).flatten(1)
                errors = {
                    label: float((delta - up @ down).norm() / self.scales[name])
                    for label, (up, down) in self.updates[name].items()
                }
                found[name] = min(errors.items(), key=lambda item: item[1])
        return found

    def _fail(self, layer, args):
        self._unhook()
        raise RuntimeError("the test fails here")

    def _unhook(self):
        if hook := getattr(self, "hook", None):
            hook.remove()
        self.hook = None


watcher = Watch()


def diffusion_model():
    sd_model = model()
    if hasattr(sd_model, "forge_objects"):
        return sd_model.forge_objects.unet.model.diffusion_model
    return sd_model.model.diffusion_model


def watch(references: str = Body(embed=True)):
    watcher.updates, watcher.scales = {}, {}
    with safe_open(references, "pt") as tensors:
        for key in tensors.keys():  # noqa: SIM118
            name, label, factor = key.rsplit(".", 2)
            if factor == "up":
                up, down = tensors.get_tensor(key), tensors.get_tensor(f"{name}.{label}.down")
                watcher.updates.setdefault(name, {})[label] = up, down
                watcher.scales[name] = max(watcher.scales.get(name, 0.0), float((up @ down).norm()))


def stop(how: str = Body(embed=True), call: int = Body(embed=True)):
    watcher.stop = how, call


def seen():
    return {"calls": watcher.calls, "problems": watcher.problems}


def settle():
    """Have Forge or Neo heed settings of how models are loaded, as their page does."""
    sys.modules["modules_forge.main_entry"].refresh_model_loading_parameters()


def state():
    return {"comments": list(comments), "inner": list(inner_pixels), "counts": dict(counts)}


def reset():
    comments.clear()
    inner_pixels.clear()
    watcher.reset()


def counting(owner, name, label):
    original = getattr(owner, name)

    def counted(*args, **kwargs):
        counts[label] += 1
        return original(*args, **kwargs)

    setattr(owner, name, counted)


def start(demo, app):
    original = processing.StableDiffusionProcessing.comment

    def comment(self, text):
        comments[text] = 1
        original(self, text)

    processing.StableDiffusionProcessing.comment = comment
    counting(sys.modules["lib_nplora.methods.bases"], "right_svd", "decompositions")
    for module_name, class_name in (("a1111", "A1111Model"), ("patching", "ForgeModel")):
        adapter = sys.modules.get(f"lib_nplora.hosts.{module_name}.model")
        if adapter:
            counting(getattr(adapter, class_name), "load", "loads")
    for route in (compare, rounding, delta, fingerprint, watch, stop, seen, settle, state, reset):
        app.add_api_route(f"/nplora-probe/{route.__name__}", route, methods=["POST"])


script_callbacks.on_app_started(start)
script_callbacks.on_cfg_denoiser(watcher.before)
script_callbacks.on_cfg_after_cfg(watcher.after)
