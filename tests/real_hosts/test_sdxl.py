"""SDXL in real hosts: UNet in half precision, both text encoders; see Halves.

NPLORA_SDXL_CHECKPOINT names its checkpoint (`python -m tests.real_hosts.checkpoint sdxl OUT.safetensors --dtype bf16`
writes one of 7 GB); NPLORA_A1111_DIR, NPLORA_FORGE_DIR and NPLORA_NEO_DIR the hosts. They need 15 GB of memory.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from . import sdxl
from .driver import RealHost, Setup, running
from .halves import SAME, Format, Halves, Pair

CASES = {
    "a1111": (("--precision", "half"), Format("float16", "float16", roundings=5)),
    "forge": (("--unet-in-bf16", "--clip-in-fp16"), Format("bfloat16", "float16")),
    "neo": (("--bf16-unet", "--bf16-text-enc"), Format("bfloat16", "bfloat16")),
}
"""Flags, and what they make of the weights."""


@pytest.fixture(scope="class")
def form(request) -> Format:
    return CASES[request.getfixturevalue("name")][1]


@pytest.fixture(scope="class")
def name(request) -> str:
    return request.param


@pytest.fixture(scope="class")
def size() -> int:
    return 128


@pytest.fixture(scope="class")
def host(name, tmp_path_factory):
    if "NPLORA_SDXL_CHECKPOINT" not in os.environ:
        pytest.skip("NPLORA_SDXL_CHECKPOINT is not set: no SDXL for a real host here")
    checkpoint = Path(os.environ["NPLORA_SDXL_CHECKPOINT"])
    setup = Setup((checkpoint,), sdxl.MODULES, precision=CASES[name][0], same=SAME, webui=False)
    with running(name, tmp_path_factory.mktemp(name), setup) as running_host:
        yield running_host


@pytest.mark.parametrize("name", list(CASES), indirect=True)
class TestSDXL(Halves):
    """See Halves."""

    def test_cost_beside_two_ordinary_tags(self, host, size):
        """The most memory, and the time of the first picture and of the second, of files that nobody has read."""
        found = {}
        for i, tags in enumerate(("<lora:c0:1><lora:s0:1>", "<nplora:c1:s1:0.5>", "<nplora:c2:s2:method=klora>")):
            Pair(host, f"c{i}", f"s{i}", seed=10 * i)
            without = host.generate("a cat", steps=2, size=size).pixels
            found[tags] = cost(host, f"a cat {tags}", size, without)
        plain, *others = found.values()
        print("ratios:", *([round(ours / theirs, 2) for ours, theirs in zip(other, plain)] for other in others))
        assert all(memory < 1.2 * plain[0] for memory, *_ in others)

    def test_cost_of_a_style_without_factors(self, host, size):
        """A LoKr of full rank, of which a copy of its layers would take 5.4 GiB more in half precision."""
        Pair(host, "c3", "s3", seed=30)
        for i in (4, 5):
            write_lokr(host.lora_dir / f"l{i}.safetensors", seed=i)
        found = []
        for tags in ("<lora:c3:1><lora:l4:1>", "<nplora:c3:l5:method=direct>"):
            without = host.generate("a cat", steps=2, size=size).pixels
            found.append(cost(host, f"a cat {tags}", size, without))
        plain, ours = found
        print("ratios:", *(round(one / other, 2) for one, other in zip(ours, plain)))
        assert ours[0] < 1.1 * plain[0]


def write_lokr(path: Path, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for module in sdxl.MODULES:
        w2 = 0.001 * torch.randn(module.out // 4, module.inp // 4, generator=generator)
        tensors[f"{module.name}.lokr_w1"] = torch.randn(4, 4, generator=generator)
        tensors[f"{module.name}.lokr_w2"] = w2.to(torch.bfloat16)
    save_file(tensors, path)


def cost(host: RealHost, prompt: str, size: int, without: tuple[str, ...]) -> list[float]:
    """The most memory of two pictures in GiB, and the seconds of each; `without` are the pixels of none of the tags."""
    seconds = []
    with host.peak() as peak:
        for _ in range(2):
            start = time.perf_counter()
            assert host.generate(prompt, steps=2, size=size).pixels != without
            seconds.append(time.perf_counter() - start)
    print(f"{prompt}: {peak[0]:.2f} GiB, {seconds[0]:.1f} s, {seconds[1]:.1f} s")
    return [*peak, *seconds]


def test_the_pair_holds_both_text_encoders():
    assert {module.name.split("_")[1] for module in sdxl.MODULES} == {"te1", "te2", "unet"}
