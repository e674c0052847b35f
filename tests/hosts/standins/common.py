"""What A1111 and the Forges have in common, as far as our extension can see it: a small host with real torch layers.

Signatures, order of calls and traps are those of the real ones (A1111 1.10.1, Forge f2.0.1, Forge Neo 2.26); the model
has a few layers, and a picture is what comes out of its forward passes.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import types
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from ..driver import Module
from .sampling import SHARE, sample

MODULES = (
    Module("lora_te_text_model_encoder_layers_0_self_attn_q_proj", 24, 24),
    Module("lora_te_text_model_encoder_layers_0_mlp_fc1", 48, 24),
    Module("lora_te_text_model_encoder_layers_0_mlp_fc2", 24, 48),
    Module("lora_unet_down_blocks_0_attentions_0_proj_in", 32, 32, 1),
    Module("lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q", 32, 32),
    Module("lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k", 32, 24),
    Module("lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_ff_net_0_proj", 64, 32),
    Module("lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_ff_net_2", 32, 64),
    Module("lora_unet_down_blocks_0_resnets_0_conv1", 32, 32, 3),
    Module("lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_out_0", 32, 32),
)
"""The layers of the small model, by their names in LoRA files."""

NORMS = (Module("lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_norm1", 32, 0),)

BYSTANDERS = (
    Module("lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn1_to_q", 8, 8),
    Module("lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn2_to_k", 8, 768),
    Module("lora_unet_down_blocks_1_resnets_0_conv1", 8, 8, 3),
)
"""Layers that can be patched, and are never run."""

NAMES = tuple(layer.name for layer in (*MODULES, *NORMS))


def attribute(name: str) -> str:
    """The layer's attribute in the small model."""
    return re.sub(r"^lora_(te|unet)_", "", name)


class Layers(torch.nn.Module):
    """One part of the small model: layers that are really run, one after the other."""

    def __init__(self, prefix: str, seed: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.silent = {attribute(module.name) for module in BYSTANDERS}
        for module in (*MODULES, *NORMS, *BYSTANDERS):
            if module.name.startswith(prefix):
                layer: torch.nn.Module
                if module in NORMS:
                    layer = torch.nn.LayerNorm(module.out)
                elif module.kernel:
                    layer = torch.nn.Conv2d(module.inp, module.out, module.kernel, padding=module.kernel // 2)
                else:
                    layer = torch.nn.Linear(module.inp, module.out)
                for parameter in layer.parameters():
                    parameter.data = torch.randn(parameter.shape, generator=generator) / 6
                    parameter.requires_grad_(False)
                self.add_module(attribute(module.name), layer)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(batch, n) -> (batch, n); each layer sees as much of x as it takes, and adds to it."""
        for name, layer in self.named_children():
            if name in self.silent:
                continue
            if isinstance(layer, torch.nn.Conv2d):
                y = self.run(layer, x[:, : layer.in_channels, None, None].expand(-1, -1, 2, 2)).mean((2, 3))
            else:
                y = self.run(layer, x[:, : getattr(layer, "in_features", layer.weight.shape[0])])
            x = torch.tanh(x + torch.nn.functional.pad(y, (0, x.shape[1] - y.shape[1])))
        return x

    def run(self, layer: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
        """For hosts that patch a layer here."""
        return layer(x)


WIDTH = 64


def module(name: str, **attributes: Any) -> types.ModuleType:
    """A module object with these attributes."""
    made = types.ModuleType(name)
    vars(made).update(attributes)
    return made


# modules.extra_networks


class ExtraNetworkParams:
    def __init__(self, items=None):
        self.items = items or []
        self.positional = [item for item in self.items if item.count("=") != 1]
        self.named = dict(item.split("=") for item in self.items if item.count("=") == 1)

    def __eq__(self, other):
        return self.items == other.items


class ExtraNetwork:
    def __init__(self, name):
        self.name = name

    def activate(self, p, params_list):
        raise NotImplementedError

    def deactivate(self, p):
        raise NotImplementedError


def extra_networks_module(display) -> types.ModuleType:
    """`modules.extra_networks`; errors of a network go to `display` and no further, as in the hosts."""
    this = module("modules.extra_networks", ExtraNetwork=ExtraNetwork, ExtraNetworkParams=ExtraNetworkParams)
    this.extra_network_registry = registry = {}

    def initialize():
        registry.clear()

    def register_extra_network(extra_network):
        registry[extra_network.name] = extra_network

    def ordered(extra_network_data):
        mentioned = {registry[name]: args for name, args in extra_network_data.items() if name in registry}
        return {**mentioned, **{network: [] for network in registry.values() if network not in mentioned}}

    def activate(p, extra_network_data):
        for network, args in ordered(extra_network_data).items():
            try:
                network.activate(p, list(args))
            except Exception as error:
                display(error)
        if p.scripts is not None:
            p.scripts.after_extra_networks_activate(p, extra_network_data=extra_network_data)

    def deactivate(p, extra_network_data):
        for network in ordered(extra_network_data):
            network.deactivate(p)

    def parse_prompt(prompt):
        found = defaultdict(list)

        def take(match):
            found[match.group(1)].append(ExtraNetworkParams(items=match.group(2).split(":")))
            return ""

        return re.sub(r"<(\w+):([^>]+)>", take, prompt), found

    def parse_prompts(prompts):
        parsed = [parse_prompt(prompt) for prompt in prompts]
        return [text for text, _ in parsed], parsed[0][1]

    for function in (initialize, register_extra_network, activate, deactivate, parse_prompt, parse_prompts):
        setattr(this, function.__name__, function)
    return this


# modules.script_callbacks


class Callbacks:
    """`modules.script_callbacks`: what scripts registered, emptied on a reload of the UI."""

    EVENTS = (
        "before_ui",
        "ui_settings",
        "infotext_pasted",
        "app_started",
        "script_unloaded",
        "cfg_denoiser",
        "cfg_denoised",
        "cfg_after_cfg",
    )

    def __init__(self, display: Callable[[Exception], None]) -> None:
        self.asked: dict[str, list] = {event: [] for event in self.EVENTS}
        self._display = display

    def call(self, event: str, *args: Any) -> None:
        """The hosts call those of before_ui in reverse."""
        for callback in reversed(self.asked[event]) if event == "before_ui" else self.asked[event]:
            callback(*args)

    def report(self, event: str, params: Any) -> None:
        """While a picture is made: errors are displayed, and go no further."""
        for callback in self.asked[event]:
            try:
                callback(params)
            except Exception as error:
                self._display(error)

    def clear(self) -> None:
        for callbacks in self.asked.values():
            callbacks.clear()

    def module(self) -> types.ModuleType:
        def on(event):
            return lambda callback, *, name=None: self.asked[event].append(callback)

        return module("modules.script_callbacks", **{f"on_{event}": on(event) for event in self.EVENTS})


# the built-in LoRA extension's list


class NetworkOnDisk:
    """Its hash is that of the header, or that which was kept under its name, or none until it is read."""

    def __init__(self, networks, name, filename):
        self.networks = networks
        self.name = name
        self.filename = filename
        self.metadata = _metadata(filename)
        self.alias = self.metadata.get("ss_output_name", name)
        self.set_hash(self.metadata.get("sshs_model_hash") or networks.kept_hashes.get(self.cached_as, ""))

    @property
    def cached_as(self):
        return self.name, os.stat(self.filename).st_mtime_ns

    def set_hash(self, value):
        self.hash = value
        self.shorthash = value[:12]
        if self.shorthash:
            self.networks.available_network_hash_lookup[self.shorthash] = self

    def read_hash(self):
        if not self.hash:
            digest = hashlib.sha256(Path(self.filename).read_bytes()).hexdigest()
            self.networks.kept_hashes[self.cached_as] = digest
            self.set_hash(digest)


def _metadata(filename):
    try:
        with safe_open(filename, "pt") as tensors:
            return tensors.metadata() or {}
    except Exception:
        return {}


def walk_files(path, allowed_extensions=None):
    """`modules.util.walk_files`."""
    for root, _, files in sorted(os.walk(path, followlinks=True)):
        for filename in sorted(files):
            if allowed_extensions is None or os.path.splitext(filename)[1].lower() in allowed_extensions:
                yield os.path.join(root, filename)


def add_lora_list(networks: types.ModuleType, lora_dir: Path) -> None:
    """Give `networks` the hosts' tables of files and aliases, and the function that fills them."""
    networks.shared = types.SimpleNamespace(
        cmd_opts=types.SimpleNamespace(lora_dir=str(lora_dir)), walk_files=walk_files
    )
    networks.kept_hashes = {}
    networks.available_networks = {}
    networks.available_network_aliases = {}
    networks.available_network_hash_lookup = {}
    networks.forbidden_network_aliases = {}
    networks.loaded_networks = []

    def list_available_networks():
        networks.available_networks.clear()
        networks.available_network_aliases.clear()
        networks.available_network_hash_lookup.clear()
        networks.forbidden_network_aliases.clear()
        networks.forbidden_network_aliases.update({"none": 1, "Addams": 1})
        for path in sorted(lora_dir.rglob("*.safetensors")):
            entry = NetworkOnDisk(networks, path.stem, str(path))
            networks.available_networks[entry.name] = entry
            if entry.alias in networks.available_network_aliases:
                networks.forbidden_network_aliases[entry.alias.lower()] = 1
            networks.available_network_aliases[entry.name] = entry
            networks.available_network_aliases[entry.alias] = entry

    def on_disk(names):
        def find(name):
            if name.lower() in networks.forbidden_network_aliases:
                return networks.available_networks.get(name)
            return networks.available_network_aliases.get(name)

        if any(find(name) is None for name in names):
            list_available_networks()
        return [find(name) for name in names]

    networks.list_available_networks = list_available_networks
    networks.networks_on_disk = on_disk
    list_available_networks()


def written(hashes):
    return ", ".join(f"{name}: {shorthash}" for name, shorthash in hashes.items())


class ExtraNetworkLora(ExtraNetwork):
    """The built-in `lora`: weights, loading, hashes."""

    def __init__(self, networks):
        super().__init__("lora")
        self.networks = networks

    def activate(self, p, params_list):
        names, te_multipliers, unet_multipliers, dyn_dims = [], [], [], []
        for params in params_list:
            te = float(params.positional[1]) if len(params.positional) > 1 else 1.0
            te = float(params.named.get("te", te))
            unet = float(params.positional[2]) if len(params.positional) > 2 else te
            names.append(params.positional[0])
            te_multipliers.append(te)
            unet_multipliers.append(float(params.named.get("unet", unet)))
            dyn_dims.append(None)
        self.networks.load_networks(names, te_multipliers, unet_multipliers, dyn_dims)
        hashes = {}
        for item in self.networks.loaded_networks:
            item.network_on_disk.read_hash()
            hashes[item.mentioned_name.replace(",", "").replace(":", "")] = item.network_on_disk.shorthash
        self.tell(p, hashes)

    def tell(self, p, hashes):
        """The hires pass adds to those of the first."""
        if not getattr(p, "is_hr_pass", False) or not hasattr(p, "lora_hashes"):
            p.lora_hashes = {}
        p.lora_hashes |= hashes
        if p.lora_hashes:
            p.extra_generation_params["Lora hashes"] = written(p.lora_hashes)

    def deactivate(self, p):
        pass


# modules.processing


class Runner:
    """`p.scripts`: the scripts that are always run. Those of an inner pass are none of ours."""

    def __init__(self, postprocess=None, alwayson=()):
        self.postprocess = postprocess
        self.alwayson_scripts = alwayson

    def process(self, p):
        for script in self.alwayson_scripts:
            script.process(p, *p.script_args[script.args_from : script.args_to])

    def postprocess_image(self, p, pp):
        for script in self.alwayson_scripts:
            script.postprocess_image(p, pp, *p.script_args[script.args_from : script.args_to])

    def after_extra_networks_activate(self, p, **kwargs):
        for script in self.alwayson_scripts:
            args = p.script_args[script.args_from : script.args_to]
            script.after_extra_networks_activate(p, *args, **kwargs)


_CACHES: dict[tuple[int, str], list] = {}


def forget_text() -> None:
    """Have text encoded anew, whatever was encoded before."""
    for cache in _CACHES.values():
        cache[:] = [None, None]


@dataclass(eq=False)
class Processing:
    """`StableDiffusionProcessing`: `cached_*` are shared by all pictures, as in the hosts."""

    host: Any
    prompt: str
    scripts: Runner | None
    hr_prompt: str | None = None
    batch_size: int = 1
    n_iter: int = 1
    img2img: bool = False
    disable_extra_networks: bool = False
    steps: int = 2
    sampler_name: str = "Euler"
    negative_prompt: str = ""
    is_hr_pass: bool = False
    script_args: list = field(default_factory=list)
    comments: dict = field(default_factory=dict)
    extra_generation_params: dict = field(default_factory=dict)

    def __post_init__(self):
        for name in ("cached_c", "cached_hr_c"):
            setattr(self, name, _CACHES.setdefault((id(self.host), name), [None, None]))

    def comment(self, text):
        self.comments[text] = 1

    @property
    def sd_model(self):
        return self.host.sd_model

    def conds(self, prompts, extra_network_data, caches):
        data = {name: [params.items for params in tags] for name, tags in extra_network_data.items()}
        key = (tuple(prompts), data, self.sd_model.sd_checkpoint_info.filename)
        for cache in caches:
            if cache[0] == key:
                return cache[1]
        caches[0][:] = [key, self.host.encode(prompts)]
        return caches[0][1]


def process_images(p: Processing):
    """The hosts' order of things. Returns (pixels, infotext)."""
    host = p.host
    extra_networks = host.extra_networks
    images = []
    count = p.batch_size * p.n_iter
    p.all_prompts = [p.prompt] * count
    p.main_prompt = p.prompt
    p.all_hr_prompts = None if p.hr_prompt is None else [p.hr_prompt or p.prompt] * count
    if p.scripts is not None:
        p.scripts.process(p)
    for iteration in range(p.n_iter):
        p.iteration = iteration
        host.state.skipped = False
        if host.state.interrupted:
            break
        host.begin_batch()
        batch = slice(iteration * p.batch_size, (iteration + 1) * p.batch_size)
        prompts, data = extra_networks.parse_prompts(p.all_prompts[batch])
        hr_prompts, hr_data = extra_networks.parse_prompts((p.all_hr_prompts or p.all_prompts)[batch])
        p.prompts, p.negative_prompts = prompts, [p.negative_prompt] * len(prompts)
        p.hr_prompts, p.hr_negative_prompts = (None, None) if p.hr_prompt is None else (hr_prompts, p.negative_prompts)
        if not p.disable_extra_networks:
            extra_networks.activate(p, data)
        host.after_activation()
        c = p.conds(prompts, data, [p.cached_c])
        if p.hr_prompt is not None and host.encodes_hires_first:
            extra_networks.activate(p, hr_data)
            hr_c = p.conds(hr_prompts, hr_data, [p.cached_hr_c, p.cached_c])
            extra_networks.activate(p, data)
        host.before_sampling()
        generator = torch.Generator().manual_seed(100 + iteration)
        noise = torch.randn(p.batch_size, WIDTH, generator=generator)
        if p.img2img:
            x = sample(host, p, noise * SHARE, c, int(SHARE * p.steps) + 1)
        else:
            x = sample(host, p, noise, c, p.steps)
        if p.hr_prompt is not None and not host.state.interrupted:
            p.is_hr_pass = True
            if not p.disable_extra_networks:
                extra_networks.activate(p, hr_data)
            if not host.encodes_hires_first:
                hr_c = p.conds(hr_prompts, hr_data, [p.cached_hr_c, p.cached_c])
            host.before_sampling()
            x = sample(host, p, x + 0.3 * noise.flip(0), hr_c, p.steps)
            p.is_hr_pass = False
        if p.scripts is not None and p.scripts.postprocess:
            p.scripts.postprocess(p)
        if p.scripts is not None:
            for row in x:
                p.scripts.postprocess_image(p, types.SimpleNamespace(image=row))
        images += [hashlib.sha256(row.numpy().tobytes()).hexdigest() for row in x]
        if not p.disable_extra_networks and data:
            last_data = data
    if not p.disable_extra_networks and data:
        extra_networks.deactivate(p, last_data)
    params = "".join(f", {name}: {quote(value)}" for name, value in _params(p).items())
    infotext = f"{p.all_prompts[0]}\nSteps: {p.steps}{params}"
    return tuple(images), infotext


def quote(value: str) -> str:
    """`infotext_utils.quote`."""
    return json.dumps(value, ensure_ascii=False) if any(sign in value for sign in ",:\n") else value


def _params(p: Processing) -> dict[str, str]:
    return {name: value for name, value in p.extra_generation_params.items() if value is not None}
