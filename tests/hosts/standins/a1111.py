"""A stand-in for A1111 1.10.1: layers are patched at their forward, from `networks.loaded_networks`."""

from __future__ import annotations

import logging
import os
import re
import types
from collections import namedtuple
from dataclasses import dataclass

import torch
from safetensors.torch import load_file

from . import networks as formulas
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


class QkvLinear(torch.nn.Linear):
    """SD3's: q, k and v in one weight."""


def shape_of(layer):
    """That of the weight that a module is for: a third of one that holds q, k and v."""
    if isinstance(layer, torch.nn.MultiheadAttention):
        return layer.out_proj.weight.shape
    out, *rest = layer.weight.shape
    return torch.Size((out // 3 if isinstance(layer, QkvLinear) else out, *rest))


class NetworkModule:
    """Scale, magnitude and multiplier, in that order, as in the host; `update` is the kind's own."""

    needs: tuple[str, ...] = ()

    def __init__(self, net, weights):
        self.network = net
        self.network_key = weights.network_key
        self.sd_key = weights.sd_key
        self.sd_module = weights.sd_module
        self.w = weights.w
        self.shape = shape_of(weights.sd_module)
        self.bias = None
        self.dora_scale = weights.w.get("dora_scale")
        self.alpha = weights.w["alpha"].item() if "alpha" in weights.w else None
        self.dim = None

    def multiplier(self):
        return self.network.te_multiplier if "transformer" in self.sd_key[:20] else self.network.unet_multiplier

    def calc_scale(self):
        return self.alpha / self.dim if None not in (self.alpha, self.dim) else 1.0

    def tensors(self, target, *names):
        """On the device of the weight that they are for."""
        return [None if self.w.get(name) is None else self.w[name].to(target.device) for name in names]

    def calc_updown(self, target):
        update, bias = self.update(target)
        update = update.reshape(target.shape) * self.calc_scale()
        if self.dora_scale is not None:
            update = formulas.dora(target, update, *self.tensors(target, "dora_scale"), of_sum_only=True)
        return update * self.multiplier(), None if bias is None else bias * self.multiplier()


class Lora(NetworkModule):
    needs = ("lora_up.weight", "lora_down.weight")

    def __init__(self, net, weights):
        super().__init__(net, weights)
        self.dim = self.w["lora_down.weight"].shape[0]
        self.up_model, self.down_model = (self.create_module(self.w[name]) for name in self.needs)
        self.mid_model = self.create_module(self.w["lora_mid.weight"]) if "lora_mid.weight" in self.w else None

    def create_module(self, weight):
        if not isinstance(self.sd_module, torch.nn.Conv2d):
            weight = weight.reshape(weight.shape[0], -1)
            made = torch.nn.Linear(weight.shape[1], weight.shape[0], bias=False)
        else:
            made = torch.nn.Conv2d(weight.shape[1], weight.shape[0], weight.shape[2:], bias=False)
        made.weight.requires_grad_(False).copy_(weight)
        return made

    def update(self, target):
        mid = None if self.mid_model is None else self.mid_model.weight.to(target.device)
        return formulas.lora(
            self.up_model.weight.to(target.device), self.down_model.weight.to(target.device), mid
        ), None


class Hada(NetworkModule):
    needs = ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b")

    def __init__(self, net, weights):
        super().__init__(net, weights)
        self.dim = self.w["hada_w1_b"].shape[0]

    def update(self, target):
        return formulas.loha(*self.tensors(target, *self.needs, "hada_t1", "hada_t2")), None


class Ia3(NetworkModule):
    needs = ("weight",)

    def update(self, target):
        return formulas.ia3(target, *self.tensors(target, "weight"), self.w["on_input"].item()), None


class Lokr(NetworkModule):
    needs = ("lokr_w1",)

    def __init__(self, net, weights):
        super().__init__(net, weights)
        self.dim = self.w["lokr_w2_b"].shape[0] if "lokr_w2_b" in self.w else None

    def update(self, target):
        w1, w2, w2a, w2b = self.tensors(target, "lokr_w1", "lokr_w2", "lokr_w2_a", "lokr_w2_b")
        return formulas.lokr(w1, w2a @ w2b if w2 is None else w2), None


class Full(NetworkModule):
    needs = ("diff",)

    def update(self, target):
        return self.tensors(target, "diff", "diff_b")


class Norm(NetworkModule):
    needs = ("w_norm", "b_norm")

    def update(self, target):
        return self.tensors(target, *self.needs)


class GLora(NetworkModule):
    needs = ("a1.weight", "a2.weight", "b1.weight", "b2.weight")

    def update(self, target):
        return formulas.glora(target, *self.tensors(target, *self.needs)), None


class Oft(NetworkModule):
    needs = ("oft_blocks",)

    def calc_scale(self):
        return 1.0

    def update(self, target):
        return formulas.oft(target, *self.tensors(target, "oft_blocks")), None


@dataclass(frozen=True)
class ModuleType:
    module: type[NetworkModule]

    def create_module(self, net, weights):
        if all(name in weights.w for name in self.module.needs):
            return self.module(net, weights)
        return None


class A1111(StandIn):
    adapter_name = "A1111"
    adapter_module = "a1111.model"
    adapter_class = "A1111Model"
    kinds = ("lora", "dora", "dora_out", "loha", "loha_tucker", "lokr", "full", "norm", "glora", "ia3", "oft")
    tells_of_denoised = True

    def host_modules(self):
        self.networks = networks = module("networks")
        add_lora_list(networks, self.lora_dir)
        networks.networks_in_memory = {}
        networks.module_types = [ModuleType(kind) for kind in (Lora, Hada, Ia3, Lokr, Full, Norm, GLora, Oft)]
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
                layer.pristine = {name: tensor.clone() for name, tensor in layer.named_parameters()}
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
            layers = self.sd_model.network_layer_mapping
            layer = layers.get(sd_key)
            if layer is None and (match := self.networks.re_x_proj.match(sd_key)):
                layer = layers.get(match.group(1))
            if layer is not None:
                matched.setdefault(sd_key, NetworkWeights(key, sd_key, {}, layer)).w[part] = weight
        for sd_key, weights in matched.items():
            made = (kind.create_module(net, weights) for kind in self.networks.module_types)
            net.modules[sd_key] = next(filter(None, made))
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
            layer.network_weights_backup, layer.network_bias_backup = layer.weight.clone(), layer.bias.clone()
        layer.weight.copy_(layer.network_weights_backup)
        layer.bias.copy_(layer.network_bias_backup)
        for net in loaded:
            net_module = net.modules.get(layer.network_layer_name)
            if net_module is not None:
                try:
                    updown, ex_bias = net_module.calc_updown(layer.weight)
                    layer.weight.copy_(layer.weight + updown)
                    if ex_bias is not None:
                        layer.bias.copy_(layer.bias + ex_bias)
                except RuntimeError as error:
                    logging.debug("Network %s layer %s: %s", net.name, layer.network_layer_name, error)
        layer.network_current_names = wanted

    def begin_batch(self):
        pass

    def after_activation(self):
        pass

    def before_sampling(self):
        pass

    def encode(self, prompts):
        seeds = [sum(prompt.strip().encode("utf-8", "surrogatepass")) for prompt in prompts]
        tokens = torch.stack([torch.randn(WIDTH, generator=torch.Generator().manual_seed(s)) for s in seeds])
        return self.sd_model.te(tokens)

    def prepare_sampling(self):
        pass

    @property
    def unet(self):
        return self.sd_model.unet

    def _layer(self, name):
        part = self.sd_model.te if name.startswith("lora_te") else self.sd_model.unet
        return getattr(part, attribute(name))

    def parameter(self, name, kind):
        return getattr(self._layer(name), kind)

    def original(self, name, kind):
        return self._layer(name).pristine[kind]
