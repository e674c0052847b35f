"""The contract suite's hands on a stand-in."""

from __future__ import annotations

import hashlib
import importlib
import io
import logging
import runpy
import sys
import types
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch

from ...reference.matrices import Factors
from ..driver import Call, Comparison, Driver, Job, Picture, nearest
from . import plot
from .common import MODULES, NAMES, NORMS, Callbacks, Processing, Runner, extra_networks_module, module, process_images
from .page import Page
from .sampling import State

SCRIPT = Path(__file__).parents[3] / "scripts" / "nplora.py"


class StandIn(Driver):
    """Puts the stand-in's modules where a host's would be, and runs our script as a host does.

    A dialect gives: host_modules, load_checkpoint, begin_batch, after_activation, before_sampling, encode,
    prepare_sampling, unet, parameter, original, kinds, tells_of_denoised.
    """

    encodes_hires_first = False
    log_level = logging.WARNING
    """What the host lets into its log."""
    modules = MODULES
    norms = NORMS

    def __init__(self, lora_dir: Path) -> None:
        self.lora_dir = lora_dir
        self.errors: list[Exception] = []
        self.extra_networks = extra_networks_module(self.errors.append)
        self.callbacks = Callbacks(self.errors.append)
        self.state = State()
        self.state.begin()
        self._references: dict[str, dict[str, Factors]] = {}
        self._calls: list[Call] = []
        self._stop: tuple[str, int] | None = None
        self.page = Page(lora_dir)
        self.plot = plot.plot_module()
        self.page.scripts_data.append(types.SimpleNamespace(script_class=object, module=self.plot))
        self.model_data = types.SimpleNamespace(sd_model=None)
        self.sd_model = None
        self._seed = 1
        self._counts: Counter[str] = Counter()
        self._patch = pytest.MonkeyPatch()
        self._log = logging.StreamHandler(io.StringIO())

    def start(self) -> None:
        logging.root.addHandler(self._log)
        logging.root.setLevel(self.log_level)
        package = module("modules", __path__=[])
        shared = {
            "modules": package,
            "modules.extra_networks": self.extra_networks,
            "modules.script_callbacks": self.callbacks.module(),
            "modules.sd_models": module("modules.sd_models", model_data=self.model_data),
            **self.page.modules(),
            **self.host_modules(),
        }
        for name, made in shared.items():
            self._patch.setitem(sys.modules, name, made)
            parent, _, child = name.rpartition(".")
            if parent:
                setattr(shared[parent], child, made)
        self._forget_webui()
        self.run_scripts()
        self.load_checkpoint(self._seed)
        self._count()

    def stop(self) -> None:
        try:
            self.unload_scripts()
        finally:
            self._patch.undo()
            self._forget_webui()
            logging.root.removeHandler(self._log)
            logging.root.setLevel(logging.WARNING)
            logging.getLogger("nplora").setLevel(logging.NOTSET)

    def run_scripts(self) -> None:
        """What a host does at its start and after "Reload UI"."""
        self.page.load(runpy.run_path(str(SCRIPT), run_name="nplora.py"))
        self.extra_networks.initialize()
        self.callbacks.call("before_ui")
        self.callbacks.call("ui_settings")
        self.register_builtin_lora()
        self.script_args = self.page.show()

    def unload_scripts(self) -> None:
        self.callbacks.call("script_unloaded")
        self.callbacks.clear()

    @staticmethod
    def _forget_webui() -> None:
        """It imported another host's modules."""
        for name in [name for name in sys.modules if name.startswith("lib_nplora.webui")]:
            del sys.modules[name]

    def _count(self) -> None:
        bases = importlib.import_module("lib_nplora.methods.bases")
        adapter = importlib.import_module(f"lib_nplora.hosts.{self.adapter_module}")
        for owner, name, label in (
            (bases, "right_svd", "decompositions"),
            (getattr(adapter, self.adapter_class), "load", "loads"),
        ):
            self._patch.setattr(owner, name, self._counting(getattr(owner, name), label))

    def _counting(self, function, label):
        def counting(*args, **kwargs):
            self._counts[label] += 1
            return function(*args, **kwargs)

        return counting

    def picture(self, job: Job) -> Picture:
        """Make pictures. What goes wrong on the way, and in a host is displayed and no more, is in `errors`."""
        self.state.begin()
        self._calls.clear()
        self._log.setStream(io.StringIO())
        self._stop = job.stop
        inner_pixels: list[str] = []

        def run_inner(outer: Processing) -> None:
            scripts, prompt = job.inner
            p = Processing(self, prompt, Runner() if scripts == "other" else None, img2img=True)
            inner_pixels.extend(process_images(p)[0])

        p = Processing(
            self,
            job.prompt,
            Runner(run_inner if job.inner else None, self.page.alwayson),
            job.hr_prompt,
            job.batch_size,
            job.n_iter,
            job.img2img,
            job.disable_extra_networks,
            job.steps,
            job.sampler,
            negative_prompt=job.negative_prompt,
            script_args=self._script_args(job.panel),
        )
        with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16, enabled=False):
            pixels, infotext = process_images(p)
        return Picture(pixels, infotext, tuple(p.comments), tuple(inner_pixels), dict(p.extra_generation_params))

    # Driver

    def run(self, job):
        picture = self.picture(job)
        assert not self.errors, self.errors
        return picture

    def logged(self):
        return self._log.stream.getvalue()

    def sweep(self, prompt, axes, *, panel=None):
        self._log.setStream(io.StringIO())

        def make(p: Processing) -> Picture:
            p.extra_generation_params = dict(p.extra_generation_params)
            pixels, infotext = process_images(p)
            return Picture(pixels, infotext, tuple(p.comments))

        p = Processing(self, prompt, Runner(None, self.page.alwayson), script_args=self._script_args(panel))
        with torch.no_grad():
            pictures = plot.cells(self.plot.axis_options, p, axes, make)
        assert not self.errors, self.errors
        return pictures

    def _script_args(self, panel) -> list:
        """As over the API: the arguments that are not given are those of the page."""
        args = list(self.script_args)
        if panel is not None:
            (script,) = self.page.alwayson
            args[script.args_from : script.args_from + len(panel)] = panel
        return args

    def called(self, denoiser) -> None:
        """To be called after each call of the model."""
        if self._references:
            found = {
                name: nearest(self.delta(name), {label: at[name] for label, at in self._references.items()})
                for name in next(iter(self._references.values()))
            }
            self._calls.append(Call.of(denoiser.step, denoiser.total_steps, denoiser.steps, found))
        if self._stop and denoiser.step == self._stop[1]:
            (how, _), self._stop = self._stop, None
            setattr(self.state, how, True)

    def denoise(self, denoiser, x):
        """The diffusion model, in whose midst an error can be asked for."""
        if self._stop != ("fail", denoiser.step):
            return self.unet(x)
        self._stop = None
        hook = list(self.unet.children())[3].register_forward_pre_hook(_fail)
        try:
            return self.unet(x)
        finally:
            hook.remove()

    def watch(self, references):
        self._references = dict(references)

    def seen(self):
        return list(self._calls)

    def set_option(self, name, value):
        self.page.opts.set(name, value)

    def compare(self, reference):
        worst = {"unet": 0.0, "te": 0.0}
        outside = 0.0
        for name in NAMES:
            delta = self.delta(name)
            if name in reference:
                up, down = reference[name]
                expected = up @ down
                part = "te" if name.startswith("lora_te") else "unet"
                error = np.linalg.norm(delta - expected) / max(np.linalg.norm(expected), 1e-12)
                worst[part] = max(worst[part], float(error))
            else:
                outside = max(outside, float(np.abs(delta).max()))
        return Comparison(worst["unet"], worst["te"], outside)

    def delta(self, name, kind="weight"):
        change = self.parameter(name, kind) - self.original(name, kind)
        return change.reshape(change.shape[0], -1).numpy()

    def fingerprint(self):
        digest = hashlib.sha256()
        for name in NAMES:
            digest.update(self.parameter(name, "weight").numpy().tobytes())
        return digest.hexdigest()

    def counts(self):
        return self._counts

    def switch_checkpoint(self):
        self._seed = 3 - self._seed
        self.load_checkpoint(self._seed)


@contextmanager
def running(kind: type[StandIn], lora_dir: Path) -> Iterator[StandIn]:
    """The stand-in for as long as it is needed."""
    host = kind(lora_dir)
    try:
        host.start()
        yield host
    finally:
        host.stop()


def _fail(layer, args):
    raise RuntimeError("the test fails here")
