"""Stand-ins for Forge and Forge Neo: patchers over one model, merged when the model is moved to the device."""

from __future__ import annotations

import copy
import functools
import types
import uuid

import torch
from safetensors.torch import load_file

from .common import MODULES, WIDTH, ExtraNetworkLora, Layers, add_lora_list, attribute, module
from .driver import StandIn


class ForgeObjects:
    def __init__(self, unet, clip, vae, clipvision):
        self.unet, self.clip, self.vae, self.clipvision = unet, clip, vae, clipvision

    def shallow_copy(self):
        return ForgeObjects(self.unet, self.clip, self.vae, self.clipvision)


class Patcher:
    """Forge's UnetPatcher and CLIP in one: patches by (filename, strengths, online_mode)."""

    def __init__(self, model):
        self.model = self.cond_stage_model = model
        self.lora_patches = {}

    def clone(self):
        made = copy.copy(self)
        made.lora_patches = self.lora_patches.copy()
        return made

    def add_patches(self, *, filename, patches, strength_patch=1.0, strength_model=1.0, online_mode=False):
        known = set(dict(self.model.named_parameters()))
        taken = {key: patch for key, patch in patches.items() if (key if isinstance(key, str) else key[0]) in known}
        self.lora_patches[(filename, strength_patch, strength_model, online_mode)] = taken
        return set(taken)

    def state(self):
        return str(list(self.lora_patches))

    def all_patches(self):
        return [
            (key, strength, patch)
            for (_, strength, _, _), patches in self.lora_patches.items()
            for key, patch in patches.items()
        ]


class NeoPatcher(Patcher):
    """Neo's: one list of patches a key, and a fresh uuid at every change."""

    def __init__(self, model):
        super().__init__(model)
        self.patches = {}
        self.patches_uuid = uuid.uuid4()

    def clone(self):
        made = copy.copy(self)
        made.patches = {key: patches[:] for key, patches in self.patches.items()}
        return made

    def add_patches(self, patches, strength_patch=1.0, strength_model=1.0, *, filename=None, online_mode=None):
        known = dict(self.model.named_parameters())
        taken = [key for key in patches if key in known]
        for key in taken:
            entry = (strength_patch, patches[key], strength_model, None, None, online_mode)
            self.patches.setdefault(key, []).append(entry)
        self.patches_uuid = uuid.uuid4()
        return taken

    def state(self):
        return self.patches_uuid if self.patches else None

    def all_patches(self):
        return [(key, entry[0], entry[1]) for key, entries in self.patches.items() for entry in entries]


class LoRAAdapter:
    name = "lora"

    def __init__(self, loaded_keys, weights):
        self.loaded_keys = loaded_keys
        self.weights = weights


def factors(patch):
    if isinstance(patch, tuple):
        kind, fields = patch
        assert kind == "lora"
        return fields[:4]
    return patch.weights[:4]


class Forge(StandIn):
    adapter_module = "forge"
    adapter_class = "ForgeHost"
    encodes_hires_first = True
    patcher_class = Patcher
    dynamic_args = {"embedding_dir": "./embeddings", "online_lora": False}  # noqa: RUF012

    def host_modules(self):
        self.networks = networks = module("networks")
        add_lora_list(networks, self.lora_dir)
        networks.load_networks = self._load_networks
        networks.load_lora_for_models = self._load_lora_for_models
        self.cached_file = functools.lru_cache(maxsize=5)(load_file)
        patcher_lora = module(
            "backend.patcher.lora",
            load_lora=self._load_lora,
            model_lora_keys_unet=self._keys("lora_unet", "diffusion_model."),
            model_lora_keys_clip=self._keys("lora_te", "clip_l."),
        )
        return {
            "networks": networks,
            "backend": module("backend", __path__=[]),
            "backend.args": module("backend.args", dynamic_args=self.dynamic_args),
            "backend.utils": module(
                "backend.utils", load_torch_file=lambda ckpt, safe_load=False, device=None: load_file(ckpt)
            ),
            "backend.patcher": module("backend.patcher", __path__=[]),
            "backend.patcher.lora": patcher_lora,
        }

    def register_builtin_lora(self):
        self.extra_networks.register_extra_network(ExtraNetworkLora(self.networks))

    def load_checkpoint(self, seed):
        def wrapped(attribute_name, prefix):
            holder = torch.nn.Module()
            holder.add_module(attribute_name, Layers(prefix, seed))
            holder.storage_dtype = torch.float32
            holder.merged_state = None
            holder.backup = {}
            return self.patcher_class(holder)

        objects = ForgeObjects(wrapped("diffusion_model", "lora_unet"), wrapped("clip_l", "lora_te"), None, None)
        self.pristine = {
            key: weight.clone()
            for patcher in (objects.unet, objects.clip)
            for key, weight in patcher.model.named_parameters()
        }
        self.sd_model = types.SimpleNamespace(
            forge_objects=objects,
            forge_objects_original=objects.shallow_copy(),
            forge_objects_after_applying_lora=objects.shallow_copy(),
            current_lora_hash=str([]),
            sd_checkpoint_info=types.SimpleNamespace(filename=f"checkpoint-{seed}.safetensors"),
        )
        self.model_data.sd_model = self.sd_model
        self.model_data.get_sd_model = lambda: self.sd_model

    def _keys(self, prefix, model_prefix):
        def model_lora_keys(model, key_map={}):  # noqa: B006
            for known in MODULES:
                key = f"{model_prefix}{attribute(known.name)}.weight"
                if known.name.startswith(prefix):
                    key_map[key.removesuffix(".weight")] = key
                    key_map[known.name] = key
            return key_map

        return model_lora_keys

    def _load_lora(self, lora, to_load):
        patches, used = {}, set()
        for name, key in to_load.items():
            up, down = f"{name}.lora_up.weight", f"{name}.lora_down.weight"
            if up in lora:
                alpha = lora.get(f"{name}.alpha")
                alpha = None if alpha is None else alpha.item()
                mid = f"{name}.lora_mid.weight"
                patches[key] = self.make_patch(lora[up], lora[down], alpha, lora.get(mid))
                used |= {up, down, mid, f"{name}.alpha"}
        return patches, {key: value for key, value in lora.items() if key not in used}

    def make_patch(self, up, down, alpha, mid):
        return ("lora", (up, down, alpha, mid, None))

    def _load_lora_for_models(
        self, model, clip, lora, strength_model, strength_clip, filename="default", online_mode=False
    ):
        lora_unet, rest = self._load_lora(lora, self._keys("lora_unet", "diffusion_model.")(model.model, {}))
        lora_clip, rest = self._load_lora(rest, self._keys("lora_te", "clip_l.")(clip.cond_stage_model, {}))
        if len(rest) > 12:
            return model, clip
        model, clip = model.clone(), clip.clone()
        model.add_patches(filename=filename, patches=lora_unet, strength_patch=strength_model, online_mode=online_mode)
        clip.add_patches(filename=filename, patches=lora_clip, strength_patch=strength_clip, online_mode=online_mode)
        return model, clip

    def _load_networks(self, names, te_multipliers=None, unet_multipliers=None, dyn_dims=None):
        sd = self.sd_model
        self.networks.loaded_networks.clear()
        targets = []
        on_disk = self.networks.networks_on_disk(names)
        for i, entry in enumerate(on_disk):
            net = types.SimpleNamespace(name=names[i], network_on_disk=entry, mentioned_name=names[i])
            self.networks.loaded_networks.append(net)
            targets.append([entry.filename, unet_multipliers[i], te_multipliers[i], False])
        if sd.current_lora_hash == str(targets):
            return
        sd.current_lora_hash = str(targets)
        sd.forge_objects.unet, sd.forge_objects.clip = sd.forge_objects_original.unet, sd.forge_objects_original.clip
        for filename, unet, te, online_mode in targets:
            sd.forge_objects.unet, sd.forge_objects.clip = self.networks.load_lora_for_models(
                sd.forge_objects.unet,
                sd.forge_objects.clip,
                self.cached_file(filename),
                unet,
                te,
                filename,
                online_mode,
            )
        sd.forge_objects_after_applying_lora = sd.forge_objects.shallow_copy()

    def begin_batch(self):
        self.sd_model.forge_objects = self.sd_model.forge_objects_original.shallow_copy()

    def after_activation(self):
        self.sd_model.forge_objects = self.sd_model.forge_objects_after_applying_lora.shallow_copy()

    before_sampling = after_activation

    def _merge(self, patcher):
        model = patcher.model
        if model.merged_state == patcher.state():
            return
        weights = dict(model.named_parameters())
        for key, backup in model.backup.items():
            weights[key].data = backup
        model.backup = {}
        for key, strength, patch in patcher.all_patches():
            model.backup.setdefault(key, weights[key].data)
            up, down, alpha, mid = factors(patch)
            scale = 1.0 if alpha is None else alpha / down.shape[0]
            down = down.float().flatten(1)
            if mid is not None:
                down = torch.einsum("nm...,mj->nj...", mid.float(), down).flatten(1)
            delta = strength * scale * (up.float().flatten(1) @ down)
            weights[key].data = weights[key].data + delta.reshape(weights[key].shape)
        model.merged_state = patcher.state()

    def encode(self, prompts):
        clip = self.sd_model.forge_objects.clip
        self._merge(clip)
        seeds = [sum(prompt.strip().encode()) for prompt in prompts]
        tokens = torch.stack([torch.randn(WIDTH, generator=torch.Generator().manual_seed(s)) for s in seeds])
        return clip.cond_stage_model.clip_l(tokens)

    def sample(self, x, c):
        unet = self.sd_model.forge_objects.unet
        self._merge(unet)
        for _ in range(2):
            x = unet.model.diffusion_model(x + c)
        return x

    def _key(self, name):
        return f"{'clip_l' if name.startswith('lora_te') else 'diffusion_model'}.{attribute(name)}.weight"

    def weight(self, name):
        objects = self.sd_model.forge_objects_original
        patcher = objects.clip if name.startswith("lora_te") else objects.unet
        return dict(patcher.model.named_parameters())[self._key(name)].data

    def original(self, name):
        return self.pristine[self._key(name)]


class Neo(Forge):
    patcher_class = NeoPatcher
    dynamic_args = types.SimpleNamespace(online_lora=False, nunchaku=False)

    def make_patch(self, up, down, alpha, mid):
        return LoRAAdapter(set(), (up, down, alpha, mid, None, None))
