"""Stand-ins for reForge and Forge Classic: the first Forge's model code, as each of them has it now."""

from __future__ import annotations

import torch
from safetensors.torch import load_file

from .common import ExtraNetworkLora, module, written
from .forge import CPU, Adapter, Forge, NeoPatcher, copy_to_param, merge_in_place, set_attr, update_of


class ReForgePatcher(NeoPatcher):
    """Neo's, without anything that is patched at each forward."""

    def add_patches(self, patches, strength_patch=1.0, strength_model=1.0):
        return super().add_patches(patches, strength_patch, strength_model)

    def use_online_lora(self, key):
        return False


def calculate_weight(patches, weight, key, intermediate_dtype=torch.float32, original_weights=None):
    """reForge's."""
    return merge_in_place(patches, weight, key, intermediate_dtype)


def set_attr_raw(model, key, value):
    layer, _, name = key.rpartition(".")
    setattr(model.get_submodule(layer), name, value)


class LdmPatched(Forge):
    online_mode = ()

    def host_modules(self):
        modules = super().host_modules()
        for name in [name for name in modules if name.startswith("backend")]:
            del modules[name]
        lora = module(
            "ldm_patched.modules.lora",
            load_lora=self._load_lora,
            model_lora_keys_unet=self._keys("lora_unet", "diffusion_model."),
            model_lora_keys_clip=self._keys("lora_te", "clip_l."),
        )
        utils = module(
            "ldm_patched.modules.utils",
            load_torch_file=lambda ckpt, safe_load=False, device=None: load_file(ckpt),
            copy_to_param=copy_to_param,
        )
        return {
            **modules,
            "ldm_patched": module("ldm_patched", __path__=[]),
            "ldm_patched.modules": module("ldm_patched.modules", __path__=[]),
            "ldm_patched.modules.lora": lora,
            "ldm_patched.modules.utils": utils,
        }


class ReForge(LdmPatched):
    adapter_name = "reForge"
    patcher_class = ReForgePatcher
    kinds = (*Forge.kinds, "oft")
    has_oft = True

    def host_modules(self):
        modules = super().host_modules()
        self.networks.network_apply_weights = lambda self: None
        modules["ldm_patched.modules.lora"].load_lora = self._load_lora_of_reforge
        modules["ldm_patched.modules.lora"].calculate_weight = calculate_weight
        modules["ldm_patched.modules.utils"].set_attr = set_attr_raw
        modules["ldm_patched.modules.utils"].set_attr_param = set_attr
        for name, attributes in (("lora_convert", {"convert_lora": lambda sd: sd}), ("weight_adapter", {})):
            modules[f"ldm_patched.modules.{name}"] = module(f"ldm_patched.modules.{name}", **attributes)
        return modules

    def make_patch(self, kind, *fields):
        return Adapter(kind, (*fields, None) if kind == "lora" else fields)

    def _load_lora_of_reforge(self, lora, to_load, log_missing=True):
        return self._load_lora(lora, to_load)[0]

    def _load_lora_for_models(self, model, clip, lora, strength_model, strength_clip, filename="default"):
        keys = self._keys("lora_unet", "diffusion_model.")(model.model, {})
        keys = self._keys("lora_te", "clip_l.")(clip.cond_stage_model, keys)
        loaded = self._load_lora_of_reforge(lora, keys)
        model, clip = model.clone(), clip.clone()
        model.add_patches(loaded, strength_model)
        clip.add_patches(loaded, strength_clip)
        return model, clip


class LoadedModel:
    def __init__(self, model):
        self.model = model


loaded_models: list[LoadedModel] = []


class ClassicPatcher:
    """Each copy keeps what it has replaced itself, and is merged, and undone, as a whole."""

    offload_device = CPU
    weight_inplace_update = False

    def __init__(self, model):
        self.model = model
        self.patches = {}
        self.backup = {}
        self.model_keys = set(dict(model.named_parameters()))

    def clone(self):
        made = type(self)(self.model)
        made.patches = {key: patches[:] for key, patches in self.patches.items()}
        return made

    def add_patches(self, patches, strength_patch=1.0, strength_model=1.0):
        taken = [key for key in patches if key in self.model_keys]
        for key in taken:
            self.patches.setdefault(key, []).append((strength_patch, patches[key], strength_model))
        return taken

    def calculate_weight(self, patches, weight, key):
        """Errors are printed, and leave the weight alone."""
        for strength, patch, strength_model in patches:
            if strength_model != 1.0:
                weight *= strength_model
            if isinstance(patch, list):
                patch = ("diff", (self.calculate_weight(patch[1:], patch[0].clone(), key),))
            kind, fields = patch
            try:
                update = fields[0].to(weight) if kind == "diff" else update_of(kind, (*fields, None), weight)
                weight += (strength * update).reshape(weight.shape)
            except Exception as error:
                print("ERROR", key, error)
        return weight

    def patch_model(self, device_to=None, patch_weights=True):
        for key, patches in self.patches.items():
            weight = self.model.get_parameter(key).data
            if key not in self.backup:
                self.backup[key] = weight.to(device=self.offload_device, copy=self.weight_inplace_update)
            merged = self.calculate_weight(patches, weight.to(torch.float32, copy=True), key).to(weight.dtype)
            (copy_to_param if self.weight_inplace_update else set_attr)(self.model, key, merged)
        return self.model

    def unpatch_model(self, device_to=None):
        for key, weight in self.backup.items():
            (copy_to_param if self.weight_inplace_update else set_attr)(self.model, key, weight)
        self.backup = {}

    def load(self):
        """What the host does on the way to the device."""
        if any(loaded.model is self for loaded in loaded_models):
            return
        for loaded in [loaded for loaded in loaded_models if loaded.model.model is self.model]:
            loaded_models.remove(loaded)
            loaded.model.unpatch_model()
        self.patch_model(CPU)
        loaded_models.insert(0, LoadedModel(self))

    def all_patches(self):
        return [(key, entry) for key, entries in self.patches.items() for entry in entries]


class ClassicLora(ExtraNetworkLora):
    def tell(self, p, hashes):
        """Into the infotext and nowhere else, where it stays if there are none later."""
        if hashes:
            p.extra_generation_params["Lora hashes"] = written(hashes)


class Classic(LdmPatched):
    adapter_name = "Forge Classic"
    patcher_class = ClassicPatcher
    builtin_lora = ClassicLora
    kinds = tuple(kind for kind in Forge.kinds if not kind.startswith("dora"))
    has_dora = False

    def host_modules(self):
        modules = super().host_modules()
        modules["ldm_patched.modules.utils"].set_attr = set_attr
        self.page.opts.lora_add_hashes_to_infotext = True
        for name, attributes in (
            ("model_management", {"current_loaded_models": loaded_models}),
            ("model_patcher", {"ModelPatcher": ClassicPatcher}),
        ):
            modules[f"ldm_patched.modules.{name}"] = module(f"ldm_patched.modules.{name}", **attributes)
        return modules

    def load_checkpoint(self, seed):
        """The model before is unloaded first."""
        loaded_models.clear()
        super().load_checkpoint(seed)

    def make_patch(self, kind, *fields):
        return kind, fields[:-1]

    def _load_lora_for_models(self, model, clip, lora, strength_model, strength_clip, filename="default"):
        lora_unet, rest = self._load_lora(lora, self._keys("lora_unet", "diffusion_model.")(model.model, {}))
        lora_clip, rest = self._load_lora(rest, self._keys("lora_te", "clip_l.")(clip.cond_stage_model, {}))
        if len(rest) > 12:
            return model, clip
        new_model, new_clip = model.clone(), clip.clone()
        new_model.add_patches(lora_unet, strength_model)
        new_clip.add_patches(lora_clip, strength_clip)
        return new_model if lora_unet else model, new_clip if lora_clip else clip
