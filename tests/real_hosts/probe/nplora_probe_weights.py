"""The weights of a running host beside its checkpoint's, by the keys of the checkpoint."""

from __future__ import annotations

import re
import sys

import torch
from modules import sd_models
from safetensors import safe_open


def model():
    return sd_models.model_data.sd_model


def parts():
    """{prefix of its keys: module}, for the parts that LoRAs change."""
    sd_model = model()
    if hasattr(sd_model, "forge_objects_original"):
        objects = sd_model.forge_objects_original
        return {"model.": objects.unet.model, "": objects.clip.cond_stage_model}
    return {"": sd_model}


def in_checkpoint(key):
    """The name in the checkpoint of what the host calls so; OpenCLIP's own names are Originals' business."""
    if key.startswith("clip_l.") and hasattr(parts()[""], "clip_g"):
        return key.replace("clip_l.", "conditioner.embedders.0.", 1)
    if key.startswith("clip_g."):
        return key.replace("clip_g.", "conditioner.embedders.1.model.", 1)
    if key.startswith("qwen3."):
        return key.replace("qwen3.", "text_encoders.qwen3_4b.transformer.", 1)
    return key.replace("clip_l.", "cond_stage_model.", 1).replace("wrapped.", "")


class Third:
    """q, k or v of an attention that keeps them in one weight, as if it were a layer of its own."""

    def __init__(self, attention, which):
        self._attention = attention
        self._third = "qkv".index(which)

    @property
    def weight(self):
        return self._attention.in_proj_weight.chunk(3)[self._third]


def own_parameters(layer):
    """(name, the layer that has it, its name there) of each of a layer's own parameters, q, k and v apart."""
    for name, _ in layer.named_parameters(recurse=False):
        if name == "in_proj_weight":
            yield from ((f"{which}_proj.weight", Third(layer, which), "weight") for which in "qkv")
        else:
            yield name, layer, name


def parameters():
    """{key in the checkpoint: (layer, the parameter's name in it)}, for the parts that LoRAs change."""
    return {
        in_checkpoint(f"{prefix}{path}.{name}"): (holder, own_name)
        for prefix, part in parts().items()
        for path, layer in part.named_modules()
        for name, holder, own_name in own_parameters(layer)
    }


def used(layer, name):
    """What a layer calculates with, also where LoRAs are applied at each forward."""
    operations = sys.modules.get("backend.operations")
    patched = ("forge_online_loras", "weight_function", "bias_function")
    if operations and any(getattr(layer, where, None) for where in patched):
        return operations.weights_manual_cast(layer, torch.zeros(1))[name == "bias"].detach().cpu()
    return getattr(layer, name).detach().cpu()


def weights():
    """{key in the checkpoint: weight}, for the parts that LoRAs change."""
    return {key: getattr(layer, name) for key, (layer, name) in parameters().items()}


def checkpoint_keys(names):
    """Where the host itself takes modules of a LoRA file to be: {module: key in the checkpoint}."""
    sd_model = model()
    if hasattr(sd_model, "forge_objects_original"):
        lora = sys.modules.get("backend.patcher.lora") or sys.modules["ldm_patched.modules.lora"]
        objects = sd_model.forge_objects_original
        unet = lora.model_lora_keys_unet(objects.unet.model, {})
        clip = lora.model_lora_keys_clip(objects.clip.cond_stage_model, {})
        return {name: f"model.{unet[name]}" if name in unet else in_checkpoint(clip[name]) for name in names}
    key_of = {layer_name(key.removesuffix(".weight")): key for key in weights() if key.endswith(".weight")}
    convert = sys.modules["networks"].convert_diffusers_name_to_compvis
    starts = {"lora_unet": "diffusion_model", "lora_te1": "0_transformer"}
    layers = {name: re.sub("^lora_(unet|te1)", lambda start: starts[start[0]], convert(name, False)) for name in names}
    return {name: key_of[layer] for name, layer in layers.items()}


def layer_name(path):
    """What A1111 calls a layer."""
    return re.sub(r"^(model|cond_stage_model|conditioner\.embedders)\.", "", path).replace(".", "_")


_keys: dict[str, str] = {}


def keys_of(names):
    """{key in the checkpoint: module}, for these modules of a LoRA file."""
    if missing := [name for name in names if name not in _keys]:
        _keys.update(checkpoint_keys(missing))
    return {_keys[name]: name for name in names}


OPEN_CLIP = {
    "transformer.text_model.encoder.layers": "transformer.resblocks",
    "transformer.text_model.embeddings.token_embedding": "token_embedding",
    "transformer.text_model.embeddings.position_embedding.weight": "positional_embedding",
    "transformer.text_model.final_layer_norm": "ln_final",
    "self_attn.out_proj": "attn.out_proj",
    "layer_norm": "ln_",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
}
"""Names of SDXL's second text encoder in hosts, and in its checkpoint."""


class Originals:
    """The checkpoint's weights, as a host holds them that stores them in its own format."""

    def __init__(self):
        self._file = safe_open(model().sd_checkpoint_info.filename, "pt")
        self._names = set(self._file.keys())

    def get(self, key, like):
        """A weight in the format of `like`; None of the autoencoder, and where the host has a name of its own."""
        third = None
        if key.startswith("conditioner.embedders.1."):
            for ours, theirs in OPEN_CLIP.items():
                key = key.replace(ours, theirs)
            if found := re.search(r"(?:self_)?attn\.([qkv])_proj\.", key):
                key, third = key.replace(found[0], "attn.in_proj_"), "qkv".index(found[1])
        if key not in self._names or key.startswith("first_stage_model."):
            return None
        tensor = self._file.get_tensor(key)
        return (tensor if third is None else tensor.chunk(3)[third]).to(like.dtype)
