"""Stable Diffusion 1.5 in half precision and less, in real hosts; see Halves."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

from .driver import Setup, running
from .halves import SAME, Format, Halves


@dataclass(frozen=True)
class Case:
    """A host that keeps its weights so."""

    host: str
    flags: tuple[str, ...]
    form: Format
    settings: dict[str, Any] = field(default_factory=dict)


FP8 = "float8-e4m3fn"
ON_THE_FLY = " (fp16 LoRA)"
"""Ends the names of settings with which Forge and Neo apply LoRAs at each forward, Forge to quantised weights only."""


def stored(how: str) -> dict[str, Any]:
    return {"forge_unet_storage_dtype": how}


FLOAT8, BF16, FP16, FP32 = "float8_e4m3fn", "bfloat16", "float16", "float32"
NEO_BF16 = ("--bf16-unet", "--bf16-text-enc")
NEO_FP16 = ("--fp16-unet", "--fp16-text-enc")
CASES = {
    "forge-bf16": Case("forge", ("--unet-in-bf16",), Format(BF16, FP16)),
    "forge-fp16": Case("forge", ("--unet-in-fp16",), Format(FP16, FP16)),
    "forge-fp8": Case("forge", (), Format(FLOAT8, FP16), stored(FP8)),
    "forge-fp8-on-the-fly": Case("forge", (), Format(FP32, FP32), stored(FP8 + ON_THE_FLY)),
    "neo-bf16": Case("neo", NEO_BF16, Format(BF16, BF16)),
    "neo-fp16": Case("neo", NEO_FP16, Format(FP16, FP16)),
    "neo-bf16-on-the-fly": Case("neo", NEO_BF16, Format(FP32, FP32), stored("Automatic" + ON_THE_FLY)),
    "neo-fp16-on-the-fly": Case("neo", NEO_FP16, Format(FP32, FP32), stored("Automatic" + ON_THE_FLY)),
    "neo-fp8": Case("neo", (), Format(FLOAT8, FP16, at_random=True), stored(FP8)),
    "neo-fp8-on-the-fly": Case("neo", (), Format(FP32, FP32), stored(FP8 + ON_THE_FLY)),
    "reforge-bf16": Case("reforge", ("--unet-in-bf16", "--bf16-text-enc"), Format(BF16, BF16)),
    "reforge-fp16": Case("reforge", ("--unet-in-fp16", "--clip-in-fp16"), Format(FP16, FP16)),
    "classic-bf16": Case("classic", ("--unet-in-bf16",), Format(BF16, FP16)),
    "classic-fp16": Case("classic", ("--unet-in-fp16", "--clip-in-fp16"), Format(FP16, FP16)),
}


@pytest.fixture(scope="class")
def case(request) -> Case:
    return CASES[request.param]


@pytest.fixture(scope="class")
def form(case) -> Format:
    return case.form


@pytest.fixture(scope="class")
def size() -> int:
    return 64


@pytest.fixture(scope="class")
def host(case, tmp_path_factory):
    """With its page where settings count: Forge and Neo read this one when they make it."""
    setup = Setup(precision=case.flags, settings=case.settings, same=SAME, webui=bool(case.settings))
    with running(case.host, tmp_path_factory.mktemp(case.host), setup) as running_host:
        yield running_host


@pytest.mark.parametrize("case", list(CASES), indirect=True)
class TestHalves(Halves):
    """See Halves."""
