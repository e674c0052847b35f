"""Sound files for something else, or whose names are there to do harm."""

from __future__ import annotations

from collections.abc import Iterator

from .bad_rows import CONV, QUERY, Row, Tensors, lora, normal, packed, raw, whole


def rows() -> Iterator[Row]:
    yield from _strangers()
    yield from _names()
    yield from _file_names()


def _strangers() -> Iterator[Row]:
    """Files for something else."""
    unet = "model.diffusion_model.input_blocks.1.0"
    block = "down_blocks.1.attentions.0.transformer_blocks.0.attn1"
    for what, names in {
        "a checkpoint": [f"{unet}.in_layers.2.weight", f"{unet}.in_layers.2.bias", "first_stage_model.decoder.weight"],
        "a unet of diffusers": [f"{block}.to_q.weight", f"{block}.to_k.weight", "conv_in.weight"],
        "a vae": ["decoder.conv_in.weight", "encoder.conv_in.weight", "quant_conv.weight"],
        "a controlnet": ["control_model.input_blocks.1.0.weight", "control_model.zero_convs.0.0.weight"],
        "a controlnet of diffusers": ["controlnet_cond_embedding.conv_in.weight", f"{block}.to_q.weight"],
        "a control lora": ["lora_controlnet", "input_blocks.1.0.in_layers.2.up", "input_blocks.1.0.in_layers.2.down"],
        "a textual inversion": ["emb_params"],
        "a textual inversion for sdxl": ["clip_g", "clip_l"],
        "a textual inversion with a string": ["string_to_param.*"],
        "a bundled inversion without a lora": ["bundle_emb.word.string_to_param.*"],
        "an ip adapter": ["image_proj.proj.weight", "ip_adapter.1.to_k_ip.weight", "ip_adapter.1.to_v_ip.weight"],
        "a hypernetwork": ["768.0.linear.0.weight", "768.1.linear.0.weight"],
        "a motion module": ["down_blocks.0.motion_modules.0.temporal_transformer.proj_in.weight"],
        "an upscaler": ["model.0.weight", "model.1.sub.0.RDB1.conv1.0.weight"],
        "a text encoder": ["text_model.encoder.layers.0.self_attn.q_proj.weight", "text_model.final_layer_norm.weight"],
        "one tensor without a name": [""],
        "one tensor named weight": ["weight"],
        "names that are dots": [".", "..", "..."],
        "an ending without a layer": [".lora_up.weight", ".lora_down.weight", ".alpha"],
    }.items():
        yield Row(what, packed({name: normal(8, 8) for name in names}))
    for what, layer in {
        "a lora for a language model": "base_model.model.model.layers.0.self_attn.q_proj",
        "a lora for no model": "nothing.that.is.known",
        "a lora for a vae": "vae.decoder.mid_block.attentions.0.to_q",
    }.items():
        yield Row(what, packed(_pair(layer)))
    yield Row("a lora for a video model", packed(_pair("diffusion_model.blocks.0.self_attn.q")), reads=True)
    yield Row(
        "a lora with a tensor of a checkpoint", packed({**whole(), "model.diffusion_model.out.2.weight": normal(8, 8)})
    )
    yield Row("a lora with an unknown tensor", packed({**whole(), f"{QUERY}.lora_sideways.weight": normal(8, 2)}))
    yield Row(
        "a lora with a bundled inversion",
        packed({**whole(), "bundle_emb.word.string_to_param.*": normal(2, 8)}),
        fine=True,
    )
    yield Row("a lora of one layer", packed(lora()), fine=True)
    yield Row(
        "a lora for other layers only",
        packed({f"{CONV}x.{key[len(CONV) + 1 :]}": value for key, value in lora(CONV).items()}),
        fine=True,
    )


def _pair(layer: str) -> Tensors:
    return {f"{layer}.lora_A.weight": normal(2, 8), f"{layer}.lora_B.weight": normal(8, 2)}


HOSTILE = {
    "a line break": "lora_unet_a\nnplora: all is well\nb",
    "a carriage return": "lora_unet_a\rb",
    "terminal escapes": "lora_unet_\x1b[2J\x1b[31mred\x07",
    "a nul": "lora_unet_a\0b",
    "a path": "../../../../etc/passwd",
    "a windows path": "..\\..\\windows\\system32",
    "an absolute path": "/etc/passwd",
    "format strings": "%s%n%x{0}{self.__class__}{name!r:>99999}",
    "a shell command": "$(touch pwned); `touch pwned`",
    "a regular expression": "(a+)+$[",
    "unicode look-alikes": "l\u043era_unet_down_blocks_1_attentions_0",
    "full-width letters": "\uff4c\uff4f\uff52\uff41_unet_conv_in",
    "right-to-left marks": "lora_unet_\u202egnihton",
    "invisible letters": "lora_unet_\u200bconv_in",
    "an emoji": "lora_unet_\U0001f600",
    "unassigned letters": "lora\uffff\ufdd0",
    "spaces": " lora unet ",
    "a name of 200000 letters": "lora_unet_" + "a" * 200_000,
    "100000 dots": "unet" + "." * 100_000,
    "100000 underlines": "lora_unet" + "_" * 100_000,
    "digits without end": "lora_unet_input_blocks_" + "9" * 10_000 + "_1_proj_in",
    "foreign digits": "lora_unet_input_blocks_\u0664_1_proj_in",
    "the prefix a thousand times": "base_model.model." * 1000 + "unet.conv_in",
    "roles a thousand times": "unet.conv_in" + ".lora_A.weight" * 1000,
}  # fmt: skip
"""Names of layers that are there to do harm."""


def _names() -> Iterator[Row]:
    for what, name in HOSTILE.items():
        tensors = {f"{name}.lora_sideways.weight": normal(8, 2)}
        yield Row(f"a stranger named with {what}", packed({**whole(), **tensors}))
        tensors = {f"{name}.lora_up.weight": normal(8, 2)}
        yield Row(f"up without down named with {what}", packed({**whole(), **tensors}))
    half = b'{"lora_unet_\\ud800.lora_up.weight": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}'
    yield Row("a name with half a letter", raw(half, bytes(4)))
    yield Row("20000 strangers", _twenty_thousand("stranger {}", rows=1))
    yield Row("20000 empty layers", _twenty_thousand("lora_unet_{}.lora_up.weight", rows=0))


def _twenty_thousand(name: str, rows: int) -> bytes:
    """Tensors of so many rows of one number. safetensors itself would take seconds to write them."""
    size = 4 * rows
    header = {
        name.format(i): {"dtype": "F32", "shape": [rows, 1], "data_offsets": [i * size, (i + 1) * size]}
        for i in range(20_000)
    }
    return raw(header, bytes(20_000 * size))


def _file_names() -> Iterator[Row]:
    for what, end in {
        "a line break in its name": "\n.safetensors",
        "terminal escapes in its name": "\x1b[31m.safetensors",
        "format strings in its name": "%s%n{0}{x!r}.safetensors",
        "quotes in its name": "'\"`.safetensors",
        "spaces at the end of its name": "  .safetensors",
        "no ending": "",
        "two endings": ".safetensors.safetensors",
        "another ending": ".txt",
        "letters of many languages": "-\u5927\u0444\u0639\U0001f600.safetensors",
        "invalid utf-8 in its name": "-\udcff.safetensors",
        "a long name": "-" + "x" * 190 + ".safetensors",
    }.items():
        name = f"a damaged file with {what}"
        yield Row(name, b"no LoRA", file=name.replace(" ", "-") + end)
