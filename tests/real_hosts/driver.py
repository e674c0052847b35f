"""A test's hands on a real host, which it starts by itself with a folder of its own for everything.

NPLORA_A1111_DIR, NPLORA_FORGE_DIR, NPLORA_NEO_DIR, NPLORA_REFORGE_DIR, NPLORA_CLASSIC_DIR name the hosts' folders,
NPLORA_CHECKPOINT a Stable Diffusion 1.5 checkpoint (random weights will do), NPLORA_CHECKPOINT_2 a different one. A
host needs up to 10 GB of memory.
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
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from ..hosts.driver import Call, Comparison, Driver, Picture
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
"""Previews take a model that a host would download."""
COMMON_FLAGS = ("--skip-prepare-environment", "--skip-install", "--skip-torch-cuda-test", "--api")


_BODY = {"steps": 2, "width": 64, "height": 64, "seed": 1, "sampler_name": "Euler", "cfg_scale": 5}


@dataclass(frozen=True)
class HostKind:
    """How one kind of host is found and started.

    variable
        The environment variable that names its folder, which has its interpreter in venv/bin/python.
    loras
        The kinds of LoRA file that it loads.
    """

    variable: str
    flags: tuple[str, ...]
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
        ("--use-cpu", "all", "--no-half", "--precision", "full", "--no-download-sd-model", "--skip-version-check"),
        {"hr_upscaler": "Latent"},
        (*ALL, *DORA, "ia3", "oft", "boft"),
    ),
    "forge": HostKind(
        "NPLORA_FORGE_DIR",
        ("--always-cpu", "--all-in-fp32", "--clip-in-fp32", "--no-download-sd-model"),
        {"hr_upscaler": "Latent", "hr_additional_modules": []},
        (*ALL, *DORA),
    ),
    "neo": HostKind(
        "NPLORA_NEO_DIR",
        ("--cpu", "--force-fp32", "--fp32-text-enc"),
        {"hr_upscaler": "None", "hr_additional_modules": []},
        (*ALL, *DORA, "oft", "boft"),
    ),
    "reforge": HostKind(
        "NPLORA_REFORGE_DIR",
        ("--always-cpu", "--all-in-fp32", "--clip-in-fp32", "--no-download-sd-model"),
        {"hr_upscaler": "Latent"},
        (*ALL, *DORA, "oft", "boft"),
    ),
    "classic": HostKind(
        "NPLORA_CLASSIC_DIR",
        ("--always-cpu", "--all-in-fp32", "--clip-in-fp32", "--no-download-sd-model"),
        {"hr_upscaler": "Latent"},
        ALL,
    ),
}


def _alwayson(panel) -> dict[str, Any]:
    return {} if panel is None else {"NP-LoRA": {"args": list(panel)}}


def pixels_of(image: Image.Image) -> str:
    """A hash."""
    return hashlib.sha256(np.asarray(image.convert("RGB")).tobytes()).hexdigest()


class RealHost(Driver):
    """A running WebUI, spoken to over its API."""

    modules = MODULES
    norms = NORMS

    def __init__(self, kind: HostKind, checkpoints: list[Path], data: Path, *, webui: bool = True) -> None:
        assert kind.folder is not None
        self._kind = kind
        self.kinds = kind.loras
        self.hires_upscaler = kind.hires["hr_upscaler"]
        self._data = data
        self._checkpoints = checkpoints
        self.lora_dir = data / "models" / "Lora"
        for folder in ("models/Lora", "models/Stable-diffusion", "extensions"):
            (data / folder).mkdir(parents=True, exist_ok=True)
        self._link(checkpoints[0])
        (data / "extensions" / "sd-webui-nplora").symlink_to(ROOT)
        shutil.copytree(PROBE, data / "extensions" / "sd-webui-nplora-probe")
        (data / "config.json").write_text(json.dumps(SETTINGS))
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
                *(() if webui else ("--nowebui",)),
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

    def _wait(self) -> None:
        deadline = time.monotonic() + 240
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
        pixels = tuple(map(pixels_of, pictures))
        params = json.loads(answer["info"])["extra_generation_params"]
        infotext = pictures[0].info["parameters"]
        return Picture(pixels, infotext, tuple(state["comments"]), tuple(state["inner"]), params)

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
        return [Call.of(**call) for call in answer["calls"]]

    def set_option(self, name, value):
        self.call("/sdapi/v1/options", {name: value})

    def compare(self, reference):
        path = self._data / "reference.safetensors"
        tensors = {}
        for name, (up, down) in reference.items():
            tensors[f"{name}.up"] = torch.from_numpy(np.ascontiguousarray(up))
            tensors[f"{name}.down"] = torch.from_numpy(np.ascontiguousarray(down))
        save_file(tensors, path)
        found = self.call("/nplora-probe/compare", {"reference": str(path)})
        assert found["layers"] == len(reference)
        print(found)
        return Comparison(found["unet"], found["te"], found["outside"])

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
def running(name: str, data: Path, *, webui: bool = True) -> Iterator[RealHost]:
    """The host for as long as it is needed; skips the test where there is none."""
    kind = KINDS[name]
    checkpoints = [Path(os.environ[x]) for x in ("NPLORA_CHECKPOINT", "NPLORA_CHECKPOINT_2") if x in os.environ]
    if kind.folder is None or len(checkpoints) < 2:
        pytest.skip(f"{kind.variable}, NPLORA_CHECKPOINT and NPLORA_CHECKPOINT_2 are not set: no real {name} here")
    host = RealHost(kind, checkpoints, data, webui=webui)
    try:
        yield host
    finally:
        host.stop()
