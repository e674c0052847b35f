"""An extension for tests only: a Qwen 3 4B of the size that the checkpoint has; the host makes the real one alone."""

from __future__ import annotations

import torch
from backend import loader
from backend.nn.llm import llama

load = loader.load_huggingface_component


def sized(guess, component_name, lib_name, cls_name, repo_path, state_dict):
    if component_name == "text_encoder":
        llama.Qwen3_4B = encoder(state_dict)
    return load(guess, component_name, lib_name, cls_name, repo_path, state_dict)


def encoder(state):
    """The class of a text encoder with as many layers, and as wide ones, as these weights have."""
    vocabulary, width = state["model.embed_tokens.weight"].shape
    heads = {
        name: len(state[f"model.layers.0.self_attn.{name}.weight"]) // llama.Qwen3_4BConfig.head_dim
        for name in ("q_proj", "k_proj")
    }
    config = llama.Qwen3_4BConfig(
        vocab_size=vocabulary,
        hidden_size=width,
        intermediate_size=len(state["model.layers.0.mlp.gate_proj.weight"]),
        num_hidden_layers=sum(key.endswith(".input_layernorm.weight") for key in state),
        num_attention_heads=heads["q_proj"],
        num_key_value_heads=heads["k_proj"],
    )

    class Encoder(llama.BaseLlama, torch.nn.Module):
        def __init__(self, config_dict):
            super().__init__()
            self.num_layers = config.num_hidden_layers
            self.model = llama.Llama2_(config)

    return Encoder


loader.load_huggingface_component = sized
