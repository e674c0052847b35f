"""A test's hands on a real host, which it starts by itself with a folder of its own for everything.

NPLORA_A1111_DIR, NPLORA_FORGE_DIR, NPLORA_NEO_DIR, NPLORA_REFORGE_DIR, NPLORA_CLASSIC_DIR name the hosts' folders,
NPLORA_CHECKPOINT a Stable Diffusion 1.5 checkpoint (random weights will do: see checkpoint.py), NPLORA_CHECKPOINT_2 a
different one. A host needs up to 10 GB of memory.
"""

from __future__ import annotations

import base64
import hashlib
import io
import itertools
import json
import os
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from ..hosts.driver import SAME, Call, Comparison, Driver, Module, Picture
from ..reference.matrices import Factors
from .sd15 import MODULES, NORMS

ROOT = Path(__file__).parents[2]
PROBE = Path(__file__).parent / "probe"
HOST_ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "PYTHONPATH": "",
    "OMP_NUM_THREADS": str(os.cpu_count()),
}
SETTINGS = {"live_previews_enable": False}
"""Previews take a model that a host would download. Set in the running host: Neo takes a file of settings for old."""
SD15 = ("NPLORA_CHECKPOINT", "NPLORA_CHECKPOINT_2")
"""The environment variables that name checkpoints of Stable Diffusion 1.5."""
COMMON_FLAGS = ("--skip-prepare-environment", "--skip-install", "--skip-torch-cuda-test", "--api")


_BODY = {"steps": 2, "width": 64, "height": 64, "seed": 1, "sampler_name": "Euler", "cfg_scale": 5}


@dataclass(frozen=True)
class HostKind:
    """How one kind of host is found and started.

    variable
        The environment variable that names its folder, which has its interpreter in venv/bin/python.
    precise
        The flags for calculation and weights in float32.
    loras
        The kinds of LoRA file that it loads.
    """

    variable: str
    flags: tuple[str, ...]
    precise: tuple[str, ...]
    hires: dict[str, Any]
    loras: tuple[str, ...]

    @property
    def folder(self) -> Path | None:
        named = os.environ.get(self.variable)
        return Path(named) if named else None


ALL = ("lora", "loha", "loha_tucker", "lokr", "full", "norm", "glora")
"""Kinds of LoRA file that every host loads."""

DORA = ("dora", "dora_out")

KINDS = {
    "a1111": HostKind(
        "NPLORA_A1111_DIR",
        ("--use-cpu", "all", "--no-download-sd-model", "--skip-version-check"),
        ("--no-half", "--precision", "full"),
        {"hr_upscaler": "Latent"},
        (*ALL, *DORA, "ia3", "oft", "boft"),
    ),
    "forge": HostKind(
        "NPLORA_FORGE_DIR",
        ("--always-cpu", "--no-download-sd-model"),
        ("--all-in-fp32", "--clip-in-fp32"),
        {"hr_upscaler": "Latent", "hr_additional_modules": []},
        (*ALL, *DORA),
    ),
    "neo": HostKind(
        "NPLORA_NEO_DIR",
        ("--cpu",),
        ("--force-fp32", "--fp32-text-enc"),
        {"hr_upscaler": "None", "hr_additional_modules": []},
        (*ALL, *DORA, "oft", "boft"),
    ),
    "reforge": HostKind(
        "NPLORA_REFORGE_DIR",
        ("--always-cpu", "--no-download-sd-model"),
        ("--all-in-fp32", "--clip-in-fp32"),
        {"hr_upscaler": "Latent"},
        (*ALL, *DORA, "oft", "boft"),
    ),
    "classic": HostKind(
        "NPLORA_CLASSIC_DIR",
        ("--always-cpu", "--no-download-sd-model"),
        ("--all-in-fp32", "--clip-in-fp32"),
        {"hr_upscaler": "Latent"},
        ALL,
    ),
}


def _alwayson(panel) -> dict[str, Any]:
    return {} if panel is None else {"NP-LoRA": {"args": list(panel)}}


def pixels_of(image: Image.Image) -> str:
    """A hash."""
    return hashlib.sha256(np.asarray(image.convert("RGB")).tobytes()).hexdigest()


@dataclass(frozen=True)
class Setup:
    """How a host is started, and with which model.

    checkpoints
        The first is loaded; None for those of Stable Diffusion 1.5.
    modules
        The layers that LoRAs are made for.
    precision
        Flags for the numbers that weights are kept in; None for float32.
    same
        Relative error under which a layer holds a reference while it is watched.
    """

    checkpoints: tuple[Path, ...] | None = None
    modules: tuple[Module, ...] = MODULES
    precision: tuple[str, ...] | None = None
    same: float = SAME
    webui: bool = True


@dataclass(frozen=True)
class Rounding:
    """The weights of a part against float64's, in the numbers of their own format.

    dtype
        The format's name.
    error, ideal
        Worst relative Frobenius error of a layer's update, and what the nearest numbers of the format would give.
    beyond_half
        How far a weight is off at most, less half the distance of two numbers of the format where it is, as a share of
        its layer's largest. Not above 0 if float64's weights were rounded to the nearest numbers.
    mean, spread
        Average and standard deviation of what the weights are off, in such distances, but for the smallest weights.
    """

    dtype: str
    error: float
    ideal: float
    beyond_half: float
    mean: float
    spread: float


class RealHost(Driver):
    """A running WebUI, spoken to over its API."""

    norms = NORMS

    def __init__(self, kind: HostKind, checkpoints: tuple[Path, ...], setup: Setup, data: Path) -> None:
        assert kind.folder is not None
        self._kind = kind
        self.kinds = kind.loras
        self.hires_upscaler = kind.hires["hr_upscaler"]
        self._data = data
        self._checkpoints = list(checkpoints)
        self._same = setup.same
        self.modules = setup.modules
        self.lora_dir = data / "models" / "Lora"
        for folder in ("models/Lora", "models/Stable-diffusion", "extensions"):
            (data / folder).mkdir(parents=True, exist_ok=True)
        self._link(checkpoints[0])
        (data / "extensions" / "sd-webui-nplora").symlink_to(ROOT)
        shutil.copytree(PROBE, data / "extensions" / "sd-webui-nplora-probe")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self._port}"
        self._logged = 0
        self._log = (data / "log.txt").open("w+")
        self._process = subprocess.Popen(
            [
                str(kind.folder / "venv" / "bin" / "python"),
                "launch.py",
                *COMMON_FLAGS,
                *kind.flags,
                *(kind.precise if setup.precision is None else setup.precision),
                *(() if setup.webui else ("--nowebui",)),
                "--port",
                str(self._port),
                "--data-dir",
                str(data),
                *(part for path in (kind.folder, data, ROOT) for part in ("--gradio-allowed-path", str(path))),
            ],
            cwd=kind.folder,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            env={**os.environ, **HOST_ENVIRONMENT},
        )
        self._wait()
        self.call("/sdapi/v1/options", SETTINGS)

    def _wait(self) -> None:
        deadline = time.monotonic() + 600
        while "Startup time" not in self.log():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise RuntimeError(f"the host did not start:\n{self.log()[-4000:]}")
            time.sleep(0.5)
        time.sleep(1)

    def saved(self) -> list[Path]:
        """The pictures in the folder that the host saves them in, in the order in which they came; grids are none."""
        found = self._data.glob("out*/*-images/**/*.png")
        return sorted(found, key=lambda path: (path.stat().st_mtime_ns, path.name))

    def log(self) -> str:
        return (self._data / "log.txt").read_text(errors="replace")

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()

    def call(self, route: str, body: dict[str, Any] | None = None) -> Any:
        request = urllib.request.Request(
            f"{self.url}{route}",
            json.dumps(body or {}).encode(),
            {"Content-Type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=900) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{error}: {error.read()[:1000]!r}\n{self.log()[-3000:]}") from None

    def run(self, job):
        self.call("/nplora-probe/reset")
        self._logged = len(self.log())
        if job.stop:
            self.call("/nplora-probe/stop", dict(zip(("how", "call"), job.stop, strict=True)))
        body: dict[str, Any] = {
            **_BODY,
            "steps": job.steps,
            "width": job.size,
            "height": job.size,
            "sampler_name": job.sampler,
            "prompt": job.prompt,
            "negative_prompt": job.negative_prompt,
            "batch_size": job.batch_size,
            "n_iter": job.n_iter,
            "disable_extra_networks": job.disable_extra_networks,
            "alwayson_scripts": _alwayson(job.panel),
        }
        if job.hr_prompt is not None:
            hires = {"enable_hr": True, "hr_prompt": job.hr_prompt, "hr_scale": 2, "denoising_strength": 0.7}
            body |= hires | self._kind.hires
        if job.img2img:
            noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
            buffer = io.BytesIO()
            Image.fromarray(noise).save(buffer, "PNG")
            body |= {"init_images": [base64.b64encode(buffer.getvalue()).decode()], "denoising_strength": 0.7}
        if job.inner:
            body["alwayson_scripts"]["NP-LoRA probe"] = {"args": list(job.inner)}
        answer = self.call(f"/sdapi/v1/{'img2img' if job.img2img else 'txt2img'}", body)
        state = self.call("/nplora-probe/state")
        images = [Image.open(io.BytesIO(base64.b64decode(image))) for image in answer["images"]]
        pictures = images[-job.batch_size * job.n_iter :]
        assert any(low < high for low, high in pictures[0].convert("RGB").getextrema()), "a picture of one colour"
        pixels = tuple(map(pixels_of, pictures))
        params = json.loads(answer["info"])["extra_generation_params"]
        infotext = pictures[0].info["parameters"]
        return Picture(pixels, infotext, tuple(state["comments"]), tuple(state["inner"]), params)

    def array(self, prompt: str) -> np.ndarray:
        """The values of a picture's pixels, (64, 64, 3) int16."""
        body = {**_BODY, "prompt": prompt, "steps": 4, "cfg_scale": 7}
        (image,) = self.call("/sdapi/v1/txt2img", body)["images"]
        return np.asarray(Image.open(io.BytesIO(base64.b64decode(image))).convert("RGB"), dtype=np.int16)

    def logged(self):
        return self.log()[self._logged :]

    def sweep(self, prompt, axes, *, panel=None):
        self._logged = len(self.log())
        body = {
            **_BODY,
            "prompt": prompt,
            "script_name": "X/Y/Z plot",
            "script_args": self._plot_args(axes),
            "alwayson_scripts": _alwayson(panel),
        }
        answer = self.call("/sdapi/v1/txt2img", body)
        infotexts = json.loads(answer["info"])["infotexts"]
        images = [Image.open(io.BytesIO(base64.b64decode(image))) for image in answer["images"]]
        _grid, *cells = zip(images, infotexts, strict=True)
        return [Picture((pixels_of(image),), infotext, ()) for image, infotext in cells]

    def _plot_args(self, axes) -> list[Any]:
        """The plot's arguments, told by the labels of its own fields, of which Forge Neo has one more."""
        with urllib.request.urlopen(f"{self.url}/sdapi/v1/script-info") as answer:
            scripts = json.load(answer)
        fields = next(s["args"] for s in scripts if s["name"] == "x/y/z plot" and not s["is_img2img"])
        values: dict[str, Any] = {"Include Sub Images": True, "Use text inputs instead of dropdowns": True}
        for letter, (label, texts) in itertools.zip_longest("XYZ", axes, fillvalue=("Nothing", ())):
            types = next(field["choices"] for field in fields if field["label"] == f"{letter} type")
            values |= {f"{letter} type": types.index(label), f"{letter} values": ", ".join(texts)}
        return [values.get(field["label"], field.get("value")) for field in fields]

    def watch(self, references):
        path = self._data / "watched.safetensors"
        tensors = {
            f"{name}.{label}.{factor}": torch.tensor(array, dtype=torch.float32)
            for label, updates in references.items()
            for name, update in updates.items()
            for factor, array in zip(("up", "down"), update, strict=True)
        }
        save_file(tensors, path)
        self.call("/nplora-probe/watch", {"references": str(path)})

    def seen(self):
        answer = self.call("/nplora-probe/seen")
        assert not answer["problems"], answer["problems"]
        return [Call.of(**call, same=self._same) for call in answer["calls"]]

    def set_option(self, name, value):
        self.call("/sdapi/v1/options", {name: value})

    def load_models(self, settings: Mapping[str, Any]) -> None:
        """Have Forge or Neo load models by these settings, as its page does."""
        self.call("/sdapi/v1/options", dict(settings))
        self.call("/nplora-probe/settle")

    def compare(self, reference):
        found = self._against(reference, "compare")
        return Comparison(found["unet"], found["te"], found["outside"])

    def rounding(self, reference: Mapping[str, Factors]) -> dict[str, Rounding]:
        """Part (`unet`, and `te` or `te1` and `te2`) -> its weights against float64's; no other may have changed."""
        found = self._against(reference, "rounding")
        assert found["outside"] == 0
        return {name: Rounding(**part) for name, part in found["parts"].items()}

    def layers_changed(self) -> int:
        """How many layers calculate with other weights than the checkpoint's."""
        outside: int = self._against({}, "rounding")["outside"]
        return outside

    def _against(self, reference: Mapping[str, Factors], route: str) -> dict[str, Any]:
        path = self._data / "reference.safetensors"
        tensors = {}
        for name, (up, down) in reference.items():
            tensors[f"{name}.up"] = torch.from_numpy(np.ascontiguousarray(up))
            tensors[f"{name}.down"] = torch.from_numpy(np.ascontiguousarray(down))
        save_file(tensors, path)
        found = self.call(f"/nplora-probe/{route}", {"reference": str(path)})
        assert found["layers"] == len(reference)
        print(found)
        return found

    def resident(self) -> float:
        """The memory that the host holds, in MiB."""
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        (line,) = (line for line in status.splitlines() if line.startswith("VmRSS"))
        return int(line.split()[1]) / 2**10

    @contextmanager
    def peak(self) -> Iterator[list[float]]:
        """Within it, a list that has the most memory that the host held, in GiB, when it ends."""
        process = Path(f"/proc/{self._process.pid}")
        found: list[float] = []
        (process / "clear_refs").write_text("5")
        yield found
        (line,) = (line for line in (process / "status").read_text().splitlines() if line.startswith("VmHWM"))
        found.append(int(line.split()[1]) / 2**20)

    def delta(self, name, kind="weight"):
        path = self._data / "delta.safetensors"
        self.call("/nplora-probe/delta", {"name": name, "kind": kind, "out": str(path)})
        return np.array(load_file(path)["delta"])  # a copy: the next call overwrites the file that this one maps

    def fingerprint(self):
        return self.call("/nplora-probe/fingerprint")

    def counts(self):
        return self.call("/nplora-probe/state")["counts"]

    def switch_checkpoint(self):
        self._checkpoints.reverse()
        self._link(self._checkpoints[0])
        self.call("/sdapi/v1/refresh-checkpoints")
        self.call("/sdapi/v1/options", {"sd_model_checkpoint": self._checkpoints[0].stem})

    def _link(self, checkpoint: Path) -> None:
        link = self._data / "models" / "Stable-diffusion" / checkpoint.name
        if not link.exists():
            link.symlink_to(checkpoint.resolve())


@contextmanager
def running(name: str, data: Path, setup: Setup | None = None) -> Iterator[RealHost]:
    """The host for as long as it is needed; skips the test where there is none."""
    kind, setup = KINDS[name], setup or Setup()
    checkpoints = setup.checkpoints or tuple(Path(os.environ[x]) for x in SD15 if x in os.environ)
    if kind.folder is None or not checkpoints:
        pytest.skip(f"{', '.join((kind.variable, *SD15))} are not set: no real {name} here")
    host = RealHost(kind, checkpoints, setup, data)
    try:
        yield host
    finally:
        host.stop()
