"""LoRAs whose settings, in the header or beside the file, are there to do harm."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

from .bad_rows import DOTTED, Row, normal, packed, whole

PEFT = {f"{DOTTED}.lora_A.weight": normal(2, 8), f"{DOTTED}.lora_B.weight": normal(8, 2)}

EXPLODING = {
    "nested repeats": r"([\w.]+)+!",
    "alternatives": r"(\w|\w|\w|\.)*!",
    "a back reference": r"(.*)*\1!(?=x)",
    "a huge count": r"(?:a{1,60000}){1,60000}",
    "20000 groups": "(" * 20000 + ")" * 20000,
}
"""Regular expressions that would take for ever, or more memory than there is."""


def rows() -> Iterator[Row]:
    for what, text in _texts():
        yield Row(f"settings {what}", packed(PEFT, {"lora_adapter_metadata": text}))
    for what, config in _configs():
        text = json.dumps({f"unet.{name}": value for name, value in config.items()})
        yield Row(f"settings with {what}", packed(PEFT, {"lora_adapter_metadata": text}))
    for what, pattern in EXPLODING.items():
        config = {"unet.lora_alpha": 4, "unet.r": 2, "unet.alpha_pattern": {pattern: 1}}
        text = json.dumps(config)
        yield Row(f"an alpha pattern with {what}", packed(PEFT, {"lora_adapter_metadata": text}), either=True)
    many = {f"layer.{i}": 1 for i in range(50_000)}
    yield Row("50000 alpha patterns", _with_patterns(many), fine=True)
    yield Row("an alpha pattern of one million letters", _with_patterns({"a" * 1_000_000: 1}), fine=True)
    yield from _harmless()
    for what, make in _beside().items():
        file = f"a-peft-file-beside-{what.replace(' ', '-')}/adapter_model.safetensors"
        yield Row(f"a peft file beside {what}", _adapter(make), either="exploding" in what, file=file)


def _with_patterns(patterns: dict[str, float]) -> bytes:
    config = {"unet.lora_alpha": 4, "unet.r": 2, "unet.alpha_pattern": patterns}
    return packed(PEFT, {"lora_adapter_metadata": json.dumps(config)})


def _texts() -> Iterator[tuple[str, str]]:
    yield "that are no json", "not json"
    yield "that are empty", ""
    yield "that are a list", "[]"
    yield "that are null", "null"
    yield "that are a number", "3"
    yield "that are a string", '"alpha"'
    yield "nested 100000 deep", "[" * 100_000
    yield "of objects 30000 deep", '{"unet.lora_alpha":' * 30_000 + "1" + "}" * 30_000
    yield "cut off", '{"unet.lora_alpha": 4, "unet.r"'
    yield "with a number of 10000 digits", '{"unet.lora_alpha": ' + "9" * 10_000 + "}"
    yield "with a number too large", '{"unet.lora_alpha": 1e999, "unet.r": 2}'


def _configs() -> Iterator[tuple[str, dict[str, object]]]:
    for what, value in {
        "no alpha": ...,
        "alpha null": None,
        "alpha in words": "four",
        "alpha a list": [4],
        "alpha an object": {"to_q": 4},
        "alpha nan": float("nan"),
        "alpha infinite": float("inf"),
    }.items():
        yield what, {"r": 2} if value is ... else {"r": 2, "lora_alpha": value}
    for what, patterns in {
        "a list of patterns": ["to_q"],
        "patterns in words": "to_q",
        "patterns a number": 5,
        "a pattern that is no expression": {"to_q[": 4},
        "a pattern that repeats nothing": {"*to_q": 4},
        "a pattern's alpha null": {"to_q": None},
        "a pattern's alpha in words": {"to_q": "four"},
        "a pattern's alpha nan": {"to_q": float("nan")},
        "a pattern's alpha a list": {"to_q": [4]},
    }.items():
        yield what, {"r": 2, "lora_alpha": 4, "alpha_pattern": patterns}


def _harmless() -> Iterator[Row]:
    plain = {"unet.lora_alpha": 4, "unet.r": 2}
    for what, metadata in {
        "settings with no word of the unet": {"lora_adapter_metadata": '{"text_encoder.lora_alpha": 4}'},
        "settings with unknown words": {"lora_adapter_metadata": json.dumps({**plain, "unet.nonsense": [{}]})},
        "settings with patterns null": {"lora_adapter_metadata": json.dumps({**plain, "unet.alpha_pattern": None})},
        "metadata of a megabyte": {"ss_tag_frequency": "x" * 1_000_000},
        "20000 metadata": {f"key {i}": "value" for i in range(20_000)},
        "metadata with terminal escapes": {"ss_output_name": "\x1b[2J\n\0"},
        "metadata that lie about the rank": {"ss_network_dim": "many", "ss_network_alpha": "None"},
    }.items():
        yield Row(what, packed(PEFT, metadata), fine=True)
    yield Row("metadata that name another model", packed(PEFT, {"ss_base_model_version": "sdxl_base_v1-0"}), reads=True)
    yield Row("metadata with a name without letters", packed(whole(), {"": ""}), fine=True)


def _adapter(make: Callable[[Path], object]) -> Callable[[Path], object]:
    def both(path: Path) -> None:
        path.parent.mkdir()
        path.write_bytes(packed({name.replace("unet.", "base_model.model."): value for name, value in PEFT.items()}))
        make(path.with_name("adapter_config.json"))

    return both


def _beside() -> dict[str, Callable[[Path], object]]:
    found: dict[str, Callable[[Path], object]] = {
        "an empty config": lambda path: path.write_bytes(b""),
        "a config that is no json": lambda path: path.write_bytes(b"lora_alpha: 4"),
        "a config that is no utf-8": lambda path: path.write_bytes(b'{"lora_alpha": "\xff\xfe"}'),
        "a config that is a list": lambda path: path.write_bytes(b"[4]"),
        "a config without alpha": lambda path: path.write_bytes(b'{"r": 2}'),
        "a config nested 100000 deep": lambda path: path.write_bytes(b"[" * 100_000),
        "a config with an exploding pattern": lambda path: path.write_text(
            json.dumps({"lora_alpha": 4, "r": 2, "alpha_pattern": {EXPLODING["nested repeats"]: 1}})
        ),
    }
    return found
