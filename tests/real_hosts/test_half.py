"""Stable Diffusion 1.5 in half precision and less, in real hosts; see Halves."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import pytest

from .driver import RealHost, Setup, running
from .halves import SAME, Format, Halves


@dataclass(frozen=True)
class Case:
    """A host that keeps its weights so."""

    host: str
    flags: tuple[str, ...]
    form: Format
    settings: dict[str, Any] = field(default_factory=dict)


AUTOMATIC = {"forge_unet_storage_dtype": "Automatic"}
FP8 = {"forge_unet_storage_dtype": "float8-e4m3fn"}
FP8_ON_THE_FLY = {"forge_unet_storage_dtype": "float8-e4m3fn (fp16 LoRA)"}
ON_THE_FLY = {"forge_unet_storage_dtype": "Automatic (fp16 LoRA)"}
"""With such settings Neo applies LoRAs at each forward. Forge has this one, too, and heeds it for quantised weights."""

FLOAT8, BF16, FP16, FP32 = "float8_e4m3fn", "bfloat16", "float16", "float32"
FORGE_BF16, FORGE_FP16 = ("--unet-in-bf16", "--clip-in-fp16"), ("--unet-in-fp16", "--clip-in-fp16")
NEO_BF16, NEO_FP16 = ("--bf16-unet", "--bf16-text-enc"), ("--fp16-unet", "--fp16-text-enc")
CASES = {
    "a1111-fp16": Case("a1111", ("--precision", "half"), Format(FP16, FP16, roundings=5)),
    "forge-bf16": Case("forge", FORGE_BF16, Format(BF16, FP16)),
    "forge-bf16-as-on-the-fly": Case("forge", FORGE_BF16, Format(BF16, FP16), ON_THE_FLY),
    "forge-fp8": Case("forge", FORGE_BF16, Format(FLOAT8, FP16), FP8),
    "forge-fp8-on-the-fly": Case("forge", FORGE_BF16, Format(FP32, FP32), FP8_ON_THE_FLY),
    "forge-fp16": Case("forge", FORGE_FP16, Format(FP16, FP16)),
    "neo-bf16": Case("neo", NEO_BF16, Format(BF16, BF16)),
    "neo-bf16-on-the-fly": Case("neo", NEO_BF16, Format(FP32, FP32), ON_THE_FLY),
    "neo-fp8": Case("neo", NEO_BF16, Format(FLOAT8, BF16, at_random=True), FP8),
    "neo-fp8-on-the-fly": Case("neo", NEO_BF16, Format(FP32, FP32), FP8_ON_THE_FLY),
    "neo-fp16": Case("neo", NEO_FP16, Format(FP16, FP16)),
    "neo-fp16-on-the-fly": Case("neo", NEO_FP16, Format(FP32, FP32), ON_THE_FLY),
    "reforge-bf16": Case("reforge", ("--unet-in-bf16", "--bf16-text-enc"), Format(BF16, BF16)),
    "reforge-fp16": Case("reforge", FORGE_FP16, Format(FP16, FP16)),
    "classic-bf16": Case("classic", FORGE_BF16, Format(BF16, FP16)),
    "classic-fp16": Case("classic", FORGE_FP16, Format(FP16, FP16)),
}


@pytest.fixture(scope="module")
def started(tmp_path_factory) -> Iterator[Callable[[Case], RealHost]]:
    """Starts a case's host, unless it is the one that runs with the same flags: one runs at a time."""
    now: dict[tuple[str, tuple[str, ...]], RealHost] = {}
    with ExitStack() as stack:

        def start(case: Case) -> RealHost:
            key = case.host, case.flags
            if key not in now:
                stack.close()
                now.clear()
                setup = Setup(precision=case.flags, same=SAME, webui=False)
                now[key] = stack.enter_context(running(case.host, tmp_path_factory.mktemp(case.host), setup))
            return now[key]

        yield start


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
def host(case, started) -> RealHost:
    host = started(case)
    if case.host in ("forge", "neo"):
        host.load_models({**AUTOMATIC, **case.settings})
    return host


@pytest.mark.parametrize("case", list(CASES), indirect=True)
class TestHalves(Halves):
    """See Halves."""
