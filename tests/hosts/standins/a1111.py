"""A stand-in for A1111 1.10.1: layers are patched at their forward, from `networks.loaded_networks`."""

from __future__ import annotations

import os
import re
import types
from collections import namedtuple

import torch
from safetensors.torch import load_file

from .common import WIDTH, ExtraNetworkLora, Layers, add_lora_list, attribute, module
from .driver import StandIn

NetworkWeights = namedtuple("NetworkWeights", ["network_key", "sd_key", "w", "sd_module"])


class Network:
    def __init__(self, name, network_on_disk):
        self.name = name
        self.network_on_disk = network_on_disk
        self.te_multiplier = 1.0
        self.unet_multiplier = 1.0
        self.dyn_dim = None
        self.modules = {}
        self.bundle_embeddings = {}
        self.mtime = None
        self.mentioned_name = None


class NetworkModuleLora:
    def __init__(self, net, weights):
        self.network = net
        self.network_key = weights.network_key
        self.sd_key = weights.sd_key
        self.sd_module = weights.sd_module
        self.shape = weights.sd_module.weight.shape
        self.bias = None
        self.dora_scale = weights.w.get("dora_scale")
        self.alpha = weights.w["alpha"].item() if "alpha" in weights.w else None
        self.dim = weights.w["lora_down.weight"].shape[0]
        self.up_model = self.create_module(weights.w["lora_up.weight"])
        self.down_model = self.create_module(weights.w["lora_down.weight"])
        self.mid_model = self.create_module(weights.w["lora_mid.weight"]) if "lora_mid.weight" in weights.w else None

    def create_module(self, weight):
        if isinstance(self.sd_module, torch.nn.Linear):
            weight = weight.reshape(weight.shape[0], -1)
            made = torch.nn.Linear(weight.shape[1], weight.shape[0], bias=False)
        else:
            made = torch.nn.Conv2d(weight.shape[1], weight.shape[0], weight.shape[2:], bias=False)
        made.weight.requires_grad_(False).copy_(weight)
        return made

    def multiplier(self):
        return self.network.te_multiplier if "transformer" in self.sd_key[:20] else self.network.unet_multiplier

    def calc_scale(self):
        return self.alpha / self.dim if self.alpha is not None else 1.0

    def calc_updown(self, target):
        down = self.down_model.weight.flatten(1)
        if self.mid_model is not None:
            down = torch.einsum("nm...,mj->nj...", self.mid_model.weight, down).flatten(1)
        updown = self.up_model.weight.flatten(1) @ down
        return updown.reshape(target.shape) * self.calc_scale() * self.multiplier(), None


class ModuleTypeLora:
    def create_module(self, net, weights):
        if all(name in weights.w for name in ("lora_up.weight", "lora_down.weight")):
            return NetworkModuleLora(net, weights)
        return None


class A1111(StandIn):
    adapter_module = "a1111"
    adapter_class = "A1111Host"

    def host_modules(self):
        self.networks = networks = module("networks")
        add_lora_list(networks, self.lora_dir)
        networks.networks_in_memory = {}
        networks.module_types = [ModuleTypeLora()]
        networks.re_x_proj = re.compile(r"(.*)_([qkv]_proj)$")
        networks.load_network = self._load_network
        networks.load_networks = self._load_networks
        networks.network_apply_weights = self._apply_weights
        return {
            "networks": networks,
            "network": module("network", Network=Network, NetworkWeights=NetworkWeights),
        }

    def register_builtin_lora(self):
        self.extra_networks.register_extra_network(ExtraNetworkLora(self.networks))

    def load_checkpoint(self, seed):
        te, unet = Layers("lora_te", seed), Layers("lora_unet", seed)
        mapping = {}
        for prefix, part in (("transformer_", te), ("diffusion_model_", unet)):
            for name, layer in part.named_children():
                layer.network_layer_name = prefix + name
                layer.register_forward_pre_hook(lambda layer, args: self.networks.network_apply_weights(layer))
                layer.pristine = layer.weight.clone()
                mapping[prefix + name] = layer
        info = types.SimpleNamespace(filename=f"checkpoint-{seed}.safetensors")
        self.sd_model = types.SimpleNamespace(network_layer_mapping=mapping, te=te, unet=unet, sd_checkpoint_info=info)
        self.model_data.sd_model = self.sd_model

    def _load_network(self, name, network_on_disk):
        net = Network(name, network_on_disk)
        net.mtime = os.path.getmtime(network_on_disk.filename)
        matched = {}
        for key, weight in load_file(network_on_disk.filename).items():
            base, _, part = key.partition(".")
            sd_key = re.sub("^lora_unet_", "diffusion_model_", re.sub("^lora_te_", "transformer_", base))
            layer = self.sd_model.network_layer_mapping.get(sd_key)
            if layer is not None:
                matched.setdefault(sd_key, NetworkWeights(key, sd_key, {}, layer)).w[part] = weight
        for sd_key, weights in matched.items():
            net.modules[sd_key] = next(t.create_module(net, weights) for t in self.networks.module_types)
        return net

    def _load_networks(self, names, te_multipliers=None, unet_multipliers=None, dyn_dims=None):
        for net in self.networks.loaded_networks:
            assert net.bundle_embeddings == {}
        self.networks.loaded_networks.clear()
        for i, (name, on_disk) in enumerate(zip(names, self.networks.networks_on_disk(names))):
            if on_disk is None:
                continue
            net = self.networks.networks_in_memory.get(name)
            if net is None or os.path.getmtime(on_disk.filename) > net.mtime:
                net = self.networks.networks_in_memory[name] = self._load_network(name, on_disk)
            net.mentioned_name = name
            net.te_multiplier, net.unet_multiplier, net.dyn_dim = te_multipliers[i], unet_multipliers[i], dyn_dims[i]
            self.networks.loaded_networks.append(net)

    def _apply_weights(self, layer):
        loaded = self.networks.loaded_networks
        wanted = tuple((net.name, net.te_multiplier, net.unet_multiplier, net.dyn_dim) for net in loaded)
        if getattr(layer, "network_current_names", ()) == wanted:
            return
        if not hasattr(layer, "network_weights_backup"):
            layer.network_weights_backup = layer.weight.clone()
        layer.weight.copy_(layer.network_weights_backup)
        for net in loaded:
            net_module = net.modules.get(layer.network_layer_name)
            if net_module is not None:
                updown, _ = net_module.calc_updown(layer.weight)
                layer.weight.copy_(layer.weight + updown)
        layer.network_current_names = wanted

    def begin_batch(self):
        pass

    def after_activation(self):
        pass

    def before_sampling(self):
        pass

    def encode(self, prompts):
        seeds = [sum(prompt.strip().encode()) for prompt in prompts]
        tokens = torch.stack([torch.randn(WIDTH, generator=torch.Generator().manual_seed(s)) for s in seeds])
        return self.sd_model.te(tokens)

    def sample(self, x, c):
        for _ in range(2):
            x = self.sd_model.unet(x + c)
        return x

    def _layer(self, name):
        part = self.sd_model.te if name.startswith("lora_te") else self.sd_model.unet
        return getattr(part, attribute(name))

    def weight(self, name):
        return self._layer(name).weight

    def original(self, name):
        return self._layer(name).pristine
