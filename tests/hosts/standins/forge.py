"""Stand-ins for Forge and Forge Neo: patchers over one model, merged when the model is moved to the device."""

from __future__ import annotations

import copy
import functools
import logging
import types
import uuid
from collections import namedtuple

import torch
from safetensors.torch import load_file

from . import networks as formulas
from .common import BYSTANDERS, MODULES, NORMS, WIDTH, ExtraNetworkLora, Layers, add_lora_list, attribute, module
from .driver import StandIn

CPU = torch.device("cpu")


class ForgeObjects:
    def __init__(self, unet, clip, vae, clipvision):
        self.unet, self.clip, self.vae, self.clipvision = unet, clip, vae, clipvision

    def shallow_copy(self):
        return ForgeObjects(self.unet, self.clip, self.vae, self.clipvision)


class Clip:
    """A patcher within an object that hands on what little it shows of it."""

    def __init__(self, patcher):
        self.patcher = patcher
        self.cond_stage_model = patcher.model

    def clone(self):
        return Clip(self.patcher.clone())

    def add_patches(self, *arguments, **named):
        return self.patcher.add_patches(*arguments, **named)


def target_of(target):
    """(key, slice, change)"""
    return (target, None, None) if isinstance(target, str) else (*target, None)[:3]


def _patched(patches, weight, key):
    """The weight with these patches, each (strength, patch, strength of the model, slice, change, ...)."""
    weight = weight.clone()
    for strength, patch, strength_model, offset, function, *_ in patches:
        part = weight.narrow(*offset) if offset else weight
        part.copy_(merge_lora_to_weight([(strength, patch, strength_model, None, function)], part, key))
    return weight


def set_attr(model, key, weight):
    """A parameter of its own, as in the hosts: what is kept is the old one, untouched."""
    layer, _, name = key.rpartition(".")
    setattr(model.get_submodule(layer), name, torch.nn.Parameter(weight, requires_grad=False))


def copy_to_param(model, key, weight):
    model.get_parameter(key).data.copy_(weight)


class LoraLoader:
    """Merges what the patchers of one model hold, and restores what it merged before, all at once."""

    def __init__(self, model):
        self.model = model
        self.backup = {}
        self.online_backup = []
        self.loaded_hash = str([])

    @torch.inference_mode()
    def refresh(self, lora_patches, offload_device=CPU, force_refresh=False):
        hashes = str(list(lora_patches.keys()))
        if hashes == self.loaded_hash and not force_refresh:
            return
        wanted = {}
        for (*_, online_mode), patches in lora_patches.items():
            for key, given in patches.items():
                wanted[key, online_mode] = wanted.get((key, online_mode), []) + given
        for layer in set(self.online_backup):
            del layer.forge_online_loras
        self.online_backup = []
        for key, weight in self.backup.items():
            set_attr(self.model, key, weight)
        self.backup = {}
        for (key, online_mode), patches in wanted.items():
            parent, _, child = key.rpartition(".")
            if online_mode:
                layer = self.model.get_submodule(parent)
                layer.forge_online_loras = {**getattr(layer, "forge_online_loras", {}), child: patches}
                self.online_backup.append(layer)
                continue
            weight = self.model.get_parameter(key)
            self.backup.setdefault(key, weight.data.to(offload_device))
            set_attr(self.model, key, _patched(patches, weight.data, key))
        self.loaded_hash = hashes


class Patcher:
    """Forge's UnetPatcher and CLIP in one: patches by (filename, strengths, online_mode), and by key under that."""

    offload_device = CPU

    def __init__(self, model):
        self.model = model
        self.lora_patches = {}
        model.lora_loader = self.lora_loader = LoraLoader(model)

    def clone(self):
        made = copy.copy(self)
        made.lora_patches = self.lora_patches.copy()
        return made

    def add_patches(self, *, filename, patches, strength_patch=1.0, strength_model=1.0, online_mode=False):
        known = set(dict(self.model.named_parameters()))
        taken, by_key = set(), {}
        for target, patch in patches.items():
            key, offset, function = target_of(target)
            if key in known:
                taken.add(target)
                by_key.setdefault(key, []).append([strength_patch, patch, strength_model, offset, function])
        self.lora_patches[(filename, strength_patch, strength_model, online_mode)] = by_key
        return taken

    def load(self):
        """What the host does on the way to the device."""
        self.lora_loader.refresh(lora_patches=self.lora_patches, offload_device=self.offload_device)

    def all_patches(self):
        return [
            (key, patch)
            for by_key in self.lora_patches.values()
            for key, patches in by_key.items()
            for patch in patches
        ]


class NeoPatcher(Patcher):
    """Neo's: one list of patches a key, and a fresh uuid at every change."""

    weight_inplace_update = False

    def __init__(self, model):
        self.model = model
        self.backup = {}
        self.patches = {}
        self.patches_uuid = uuid.uuid4()
        model.current_weight_patches_uuid = None

    def clone(self):
        made = copy.copy(self)
        made.patches = {key: patches[:] for key, patches in self.patches.items()}
        return made

    def add_patches(self, patches, strength_patch=1.0, strength_model=1.0, *, filename=None, online_mode=None):
        known = dict(self.model.named_parameters())
        taken = [target for target in patches if target_of(target)[0] in known]
        for target in taken:
            key, offset, function = target_of(target)
            entry = (strength_patch, patches[target], strength_model, offset, function, online_mode)
            self.patches.setdefault(key, []).append(entry)
        self.patches_uuid = uuid.uuid4()
        return taken

    def use_online_lora(self, key):
        return any(entry[-1] for entry in self.patches.get(key, []))

    def load(self):
        if self.model.current_weight_patches_uuid not in (None, self.patches_uuid):
            self._unpatch()
        for name, layer in self.model.named_modules():
            if getattr(layer, "forge_patched_weights", False):
                continue
            for parameter, _ in layer.named_parameters(recurse=False):
                key = f"{name}.{parameter}"
                if self.use_online_lora(key):
                    setattr(layer, f"{parameter}_function", [LowVramPatch(key, self.patches)])
                else:
                    self.patch_weight_to_device(key, device_to=CPU)
            layer.forge_patched_weights = True
        self.model.current_weight_patches_uuid = self.patches_uuid

    def _unpatch(self):
        for layer in self.model.modules():
            layer.weight_function = layer.bias_function = []
            layer.forge_patched_weights = False
        for key, kept in self.backup.items():
            (copy_to_param if kept.inplace_update else set_attr)(self.model, key, kept.weight)
        self.backup.clear()
        self.model.current_weight_patches_uuid = None

    def patch_weight_to_device(self, key, device_to=None, inplace_update=False):
        weight = self.model.get_parameter(key).data
        if key not in self.patches:
            return
        inplace_update = self.weight_inplace_update or inplace_update
        if key not in self.backup:
            self.backup[key] = Kept(weight.clone() if inplace_update else weight, inplace_update)
        merged = _patched(self.patches[key], weight, key)
        (copy_to_param if inplace_update else set_attr)(self.model, key, merged)

    def all_patches(self):
        return [(key, entry) for key, entries in self.patches.items() for entry in entries]


class LowVramPatch:
    """What Neo gives a layer to patch its weight with at each forward."""

    def __init__(self, key, patches):
        self.key = key
        self.patches = patches

    def __call__(self, weight):
        return _patched(self.patches[self.key], weight, self.key)


class OnlineLayers(Layers):
    """Patched at each forward where the host says so, each by its own means."""

    def run(self, layer, x):
        weights = {name: parameter.data for name, parameter in layer.named_parameters()}
        for name, patches in getattr(layer, "forge_online_loras", {}).items():
            weights[name] = _patched(patches, weights[name], name)
        for name in weights:
            for function in getattr(layer, f"{name}_function", []):
                weights[name] = function(weights[name])
        return torch.func.functional_call(layer, weights, x)


Kept = namedtuple("Dimension", ["weight", "inplace_update"])


class Adapter:
    """Neo's patches: an object for each kind. Errors are logged, and leave the weight alone."""

    def __init__(self, kind, fields):
        self.name = kind
        self.weights = fields

    def calculate_weight(self, weight, key, strength, strength_model, offset, function, intermediate_dtype):
        try:
            weight += function(strength * update_of(self.name, self.weights, weight).reshape(weight.shape))
        except Exception as error:
            logging.error("ERROR %s %s %s", self.name, key, error)
        return weight


def update_of(kind, fields, weight):
    """The update by a patch's fields: in each the host's own order, with alpha and the magnitude among them."""
    fields = [field.to(weight) if isinstance(field, torch.Tensor) else field for field in fields]
    alpha, magnitude, rank = None, None, 1
    if kind == "lora":
        up, down, alpha, mid, magnitude, *_ = fields
        update, rank = formulas.lora(up, down, mid), down.shape[0]
    elif kind == "loha":
        w1a, w1b, alpha, w2a, w2b, t1, t2, magnitude = fields
        update, rank = formulas.loha(w1a, w1b, w2a, w2b, t1, t2), w1b.shape[0]
    elif kind == "lokr":
        w1, w2, alpha, _, _, w2a, w2b, _, magnitude = fields
        update = formulas.lokr(w1, w2a @ w2b if w2 is None else w2)
        alpha, rank = (None, 1) if w2b is None else (alpha, w2b.shape[0])
    elif kind == "glora":
        a1, a2, b1, b2, alpha, magnitude = fields
        update, rank = formulas.glora(weight, a1, a2, b1, b2), a1.shape[0]
    elif kind == "oft":
        return formulas.oft(weight, fields[0])
    else:
        raise ValueError(f"{kind} is not recognized")
    update = update.reshape(weight.shape) * (1.0 if alpha is None else alpha / rank)
    return update if magnitude is None else formulas.dora(weight, update, magnitude, of_sum_only=False)


def of_pair(first, weight, computation_dtype):
    """What Neo takes the first weight of a nested patch for."""
    return first[1](first[0].to(weight.device, computation_dtype, copy=True), inplace=True)


def merge_in_place(patches, weight, key, computation_dtype=torch.float32, first_weight=of_pair):
    """Neo's."""
    for strength, patch, strength_model, _, function in patches:
        change = function or (lambda update: update)
        if isinstance(patch, list):
            nested = first_weight(patch[0], weight, computation_dtype)
            patch = ("diff", (merge_in_place(patch[1:], nested, key, computation_dtype, first_weight),))
        if isinstance(patch, Adapter):
            weight = patch.calculate_weight(weight, key, strength, strength_model, None, change, computation_dtype)
            continue
        kind, fields = patch
        update = fields[0].to(weight) if kind == "diff" else update_of(kind, fields, weight)
        weight += strength * change(update).reshape(weight.shape)
    return weight


@torch.inference_mode()
def merge_lora_to_weight(patches, weight, key="online_lora", computation_dtype=torch.float32):
    """Forge's."""
    copied = weight.to(computation_dtype, copy=True)
    merged = merge_in_place(patches, copied, key, computation_dtype, lambda first, weight, dtype: first.clone())
    return merged.to(weight.dtype)


def prefix_replaced(state, replace_prefix, filter_keys=False):
    """Neo's, which its LoRA loader calls on every file that has such names."""
    for old, new in replace_prefix.items():
        state = {new + key.removeprefix(old) if key.startswith(old) else key: value for key, value in state.items()}
    return state


class Forge(StandIn):
    adapter_name = "Forge"
    adapter_module = "patching.model"
    adapter_class = "ForgeModel"
    kinds = ("lora", "dora", "dora_out", "loha", "loha_tucker", "lokr", "full", "norm", "glora")
    encodes_hires_first = True
    tells_of_denoised = False
    patcher_class = Patcher
    builtin_lora = ExtraNetworkLora
    online_mode = (False,)
    merge = staticmethod(merge_lora_to_weight)
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
            merge_lora_to_weight=self.merge,
            model_lora_keys_unet=self._keys("lora_unet", "diffusion_model."),
            model_lora_keys_clip=self._keys("lora_te", "clip_l."),
        )
        return {
            "networks": networks,
            "backend": module("backend", __path__=[]),
            "backend.args": module("backend.args", dynamic_args=self.dynamic_args),
            "backend.utils": module(
                "backend.utils",
                load_torch_file=lambda ckpt, safe_load=False, device=None: load_file(ckpt),
                set_attr=set_attr,
                copy_to_param=copy_to_param,
            ),
            "backend.patcher": module("backend.patcher", __path__=[]),
            "backend.patcher.lora": patcher_lora,
        }

    def register_builtin_lora(self):
        self.extra_networks.register_extra_network(self.builtin_lora(self.networks))

    def load_checkpoint(self, seed):
        def wrapped(attribute_name, prefix):
            holder = torch.nn.Module()
            holder.add_module(attribute_name, OnlineLayers(prefix, seed))
            holder.storage_dtype = torch.float32
            return self.patcher_class(holder)

        objects = ForgeObjects(wrapped("diffusion_model", "lora_unet"), Clip(wrapped("clip_l", "lora_te")), None, None)
        self.pristine = {
            key: weight.clone()
            for patcher in (objects.unet, objects.clip.patcher)
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
            for known in (*MODULES, *NORMS, *BYSTANDERS):
                key = f"{model_prefix}{attribute(known.name)}.weight"
                if known.name.startswith(prefix):
                    key_map[key.removesuffix(".weight")] = key
                    key_map[known.name] = key
            return key_map

        return model_lora_keys

    def _load_lora(self, lora, to_load):
        """Patches by the names of the tensors, as the host makes them: the last kind that a layer has wins."""
        patches, used = {}, set()
        for name, key in to_load.items():

            def take(role, name=name):
                used.add(f"{name}.{role}")
                return lora.get(f"{name}.{role}")

            alpha = take("alpha")
            alpha = None if alpha is None else alpha.item()
            dora = take("dora_scale") if self.has_dora else None
            if f"{name}.lora_up.weight" in lora:
                up, down, mid = (take(f"lora_{role}.weight") for role in ("up", "down", "mid"))
                patches[key] = self.make_patch("lora", up, down, alpha, mid, dora)
            if f"{name}.hada_w1_a" in lora:
                w1a, w1b, w2a, w2b = (take(f"hada_{role}") for role in ("w1_a", "w1_b", "w2_a", "w2_b"))
                cores = take("hada_t1"), take("hada_t2")
                patches[key] = self.make_patch("loha", w1a, w1b, alpha, w2a, w2b, *cores, dora)
            if f"{name}.lokr_w1" in lora:
                w1, w2, w2a, w2b = (take(f"lokr_{role}") for role in ("w1", "w2", "w2_a", "w2_b"))
                patches[key] = self.make_patch("lokr", w1, w2, alpha, None, None, w2a, w2b, None, dora)
            if f"{name}.a1.weight" in lora:
                factors = (take(f"{role}.weight") for role in ("a1", "a2", "b1", "b2"))
                patches[key] = self.make_patch("glora", *factors, alpha, dora)
            if self.has_oft and f"{name}.oft_blocks" in lora:
                patches[key] = self.make_patch("oft", take("oft_blocks"), None, alpha, dora)
            for weight, bias in (("w_norm", "b_norm"), ("diff", "diff_b")):
                if f"{name}.{weight}" in lora:
                    patches[key] = ("diff", (take(weight),))
                    if f"{name}.{bias}" in lora:
                        patches[f"{key.removesuffix('.weight')}.bias"] = ("diff", (take(bias),))
        return patches, {key: value for key, value in lora.items() if key not in used}

    has_oft = False
    has_dora = True

    def make_patch(self, kind, *fields):
        return kind, fields

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
            targets.append([entry.filename, unet_multipliers[i], te_multipliers[i], *self.online_mode])
        if sd.current_lora_hash == str(targets):
            return
        sd.current_lora_hash = str(targets)
        sd.forge_objects.unet, sd.forge_objects.clip = sd.forge_objects_original.unet, sd.forge_objects_original.clip
        for filename, unet, te, *online_mode in targets:
            sd.forge_objects.unet, sd.forge_objects.clip = self.networks.load_lora_for_models(
                sd.forge_objects.unet,
                sd.forge_objects.clip,
                self.cached_file(filename),
                unet,
                te,
                filename,
                *online_mode,
            )
        sd.forge_objects_after_applying_lora = sd.forge_objects.shallow_copy()

    def begin_batch(self):
        self.sd_model.forge_objects = self.sd_model.forge_objects_original.shallow_copy()

    def after_activation(self):
        self.sd_model.forge_objects = self.sd_model.forge_objects_after_applying_lora.shallow_copy()

    before_sampling = after_activation

    def encode(self, prompts):
        clip = self.sd_model.forge_objects.clip
        clip.patcher.load()
        seeds = [sum(prompt.strip().encode("utf-8", "surrogatepass")) for prompt in prompts]
        tokens = torch.stack([torch.randn(WIDTH, generator=torch.Generator().manual_seed(s)) for s in seeds])
        return clip.cond_stage_model.clip_l(tokens)

    def prepare_sampling(self):
        self.sd_model.forge_objects.unet.load()

    @property
    def unet(self):
        return self.sd_model.forge_objects.unet.model.diffusion_model

    def _key(self, name, kind):
        return f"{'clip_l' if name.startswith('lora_te') else 'diffusion_model'}.{attribute(name)}.{kind}"

    def parameter(self, name, kind):
        objects = self.sd_model.forge_objects_original
        patcher = objects.clip.patcher if name.startswith("lora_te") else objects.unet
        return patcher.model.get_parameter(self._key(name, kind)).data

    def original(self, name, kind):
        return self.pristine[self._key(name, kind)]


class Neo(Forge):
    patcher_class = NeoPatcher
    merge = staticmethod(merge_in_place)
    dynamic_args = types.SimpleNamespace(online_lora=False, nunchaku=False)
    kinds = (*Forge.kinds, "oft")
    has_oft = True
    log_level = logging.ERROR

    def host_modules(self):
        modules = super().host_modules()
        self.networks.state_dict_prefix_replace = prefix_replaced
        return modules

    def make_patch(self, kind, *fields):
        return Adapter(kind, (*fields, None) if kind == "lora" else fields)
