"""A newer model in real Forge Neo: FLUX.2 Klein, with a LoRA that has its layers whole, and one that has them split."""

from __future__ import annotations

import base64
import io
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import inf
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ..hosts.contract.schedules import schedules
from ..reference import error
from ..reference.kohya import content_inside_style, letters, norm, projected
from ..reference.matrices import Factors, added
from . import klein
from .driver import KINDS, RealHost, Setup, running

ENCODER = Path(__file__).parent / "small_encoder"
PLAIN = "a cat"
TAG = "a cat <nplora:dog:vangogh:0.5>"


@dataclass(frozen=True)
class Klein:
    """The host, and what the LoRAs add to its layers."""

    host: RealHost
    dog: klein.Updates
    vangogh: klein.Updates

    def picture(self, prompt: str, steps: int = 1) -> np.ndarray:
        """Made without a word about the tag."""
        self.host.call("/nplora-probe/reset")
        size = {"width": 64, "height": 64, "steps": steps, "seed": 1, "sampler_name": "Euler", "cfg_scale": 1}
        (image,) = self.host.call("/sdapi/v1/txt2img", {"prompt": prompt, **size})["images"]
        assert self.host.call("/nplora-probe/state")["comments"] == []
        return np.asarray(Image.open(io.BytesIO(base64.b64decode(image))).convert("RGB"), dtype=np.int16)

    def check(self, double: float, single: float) -> None:
        """The weights of the last picture: NP-LoRA, with a mu for each kind of block.

        Slices of the style meet the same rows of the content.
        """
        self.check_all(
            {
                name: stacked(
                    [projected(*sides, single if "single" in name else double, 1, 1) for sides in self.pieces(name)]
                )
                for name in self.dog
            }
        )

    def check_all(self, expected: Mapping[str, Factors]) -> None:
        found = self.host.compare(expected)
        assert found.unet < 1e-5
        assert found.outside == 0

    def pieces(self, name: str) -> list[tuple[Factors, Factors]]:
        """What the two add to each slice of a layer in which they meet."""
        (((up, down),), styles) = self.dog[name], self.vangogh[name]
        return [((rows, down), style) for rows, style in zip(np.split(up, len(styles)), styles)]

    def winners(self, steps: int) -> dict[str, list[str]]:
        """Layer of an attention -> for each step, who wins each of its slices."""
        names = [name for name in self.dog if any(part in name for part in ("attn", "linear1"))]
        meeting = {f"{name} {i}": sides for name in names for i, sides in enumerate(self.pieces(name))}
        won = letters(meeting, "klora", steps)
        return {
            name: ["".join(step) for step in zip(*(won[f"{name} {i}"] for i in range(len(self.pieces(name)))))]
            for name in names
        }

    def won(self, name: str, winners: str) -> Factors:
        """What a layer gets while these win its slices."""
        return stacked([sides["cs".index(winner)] for sides, winner in zip(self.pieces(name), winners)])

    def overlaps(self) -> dict[str, float]:
        """Layer, or rows of it -> the share of the content's energy that is inside the style's subspace."""
        result = {}
        for name in self.dog:
            pieces = self.pieces(name)
            for i, ((up, down), (_, style)) in enumerate(pieces):
                basis, _ = np.linalg.qr(style.T)
                part = name if len(pieces) == 1 else f"{name}[{i * len(up)}:{(i + 1) * len(up)}]"
                result[part] = (norm((up, down @ basis)) / norm((up, down))) ** 2
        return result


def stacked(slices: Sequence[Factors]) -> Factors:
    """Updates of slices of a layer's rows, as one of the layer."""
    up = torch.block_diag(*(torch.from_numpy(up) for up, _ in slices))
    return up.numpy(), np.concatenate([down for _, down in slices])


@pytest.fixture(scope="module")
def neo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Klein]:
    kind = KINDS["neo"]
    if kind.folder is None:
        pytest.skip(f"{kind.variable} is not set: no real neo here")
    data = tmp_path_factory.mktemp("neo")
    checkpoint = klein.write_checkpoint(data / "klein.safetensors")
    shutil.copytree(ENCODER, data / "extensions" / ENCODER.name)
    with running("neo", data, Setup(checkpoints=(checkpoint,), webui=False)) as host:
        vangogh = klein.diffusers_lora(host.lora_dir / "vangogh.safetensors", seed=2, rank=6)
        dog = klein.kohya_lora(host.lora_dir / "dog.safetensors", seed=1, rank=4, alpha=2, near=vangogh)
        yield Klein(host, dog, vangogh)
    checkpoint.unlink()


@pytest.fixture(scope="module")
def plain(neo: Klein) -> tuple[np.ndarray, str]:
    """The picture without a tag, and the hash of the weights."""
    return neo.picture(PLAIN), neo.host.fingerprint()


def test_a_tag_that_is_gone_was_never_there(neo: Klein, plain: tuple[np.ndarray, str]) -> None:
    picture, weights = plain
    assert np.abs(neo.picture(TAG) - picture).max() > 8
    assert neo.host.fingerprint() != weights
    assert (neo.picture(PLAIN) == picture).all()
    assert neo.host.fingerprint() == weights


def test_mu_0_is_the_hosts_own_two_tags(neo: Klein) -> None:
    tags = neo.picture("a cat <lora:dog:1><lora:vangogh:1>")
    merged = {name: neo.host.delta(name) for name in neo.dog}
    fused = neo.picture("a cat <nplora:dog:vangogh:0>")
    neo.check(0, 0)
    errors = {name: error(neo.host.delta(name), merged[name]) for name in merged}
    print(f"mu=0 against two tags: weights {max(errors.values()):.1e}, pixels {np.abs(fused - tags).max()}")
    assert max(errors.values()) < 1e-5, errors
    assert np.abs(fused - tags).max() <= 1


def test_hard_leaves_the_content_nothing_inside_the_style(neo: Klein) -> None:
    neo.picture("a cat <nplora:dog:vangogh:hard>")
    neo.check(inf, inf)
    name = "lora_unet_double_blocks_0_txt_attn_proj"
    (content,), (style,) = neo.dog[name], neo.vangogh[name]
    left = content_inside_style(neo.host.delta(name), content, style)
    print(f"content left inside the style: {left:.1e}")
    assert left < 1e-9


def test_blocks_are_told_apart(neo: Klein) -> None:
    neo.picture("a cat <nplora:dog:vangogh:0.5,single@hard>")
    neo.check(0.5, inf)


def test_layers_take_turns(neo: Klein) -> None:
    """Each slice by itself, in all layers of attentions; the others are added up."""
    steps = 4
    expected = neo.winners(steps)
    print(expected)
    assert len({tuple(by_step) for by_step in expected.values()}) >= 3
    assert any(len({*winners}) > 1 for by_step in expected.values() for winners in by_step)
    references: dict[str, dict[str, Factors]] = {}
    for name, by_step in expected.items():
        for winners in {*by_step, len(by_step[0]) * "c", len(by_step[0]) * "s"}:
            references.setdefault(winners, {})[name] = neo.won(name, winners)
    neo.host.watch(references)
    neo.picture("a cat <nplora:dog:vangogh:method=klora>", steps)
    neo.host.watch({})
    assert schedules(neo.host.seen(), steps) == [{name: "".join(by_step) for name, by_step in expected.items()}]
    last = {name: neo.won(name, by_step[-1]) for name, by_step in expected.items()}
    others = {name: stacked([added(*sides) for sides in neo.pieces(name)]) for name in neo.dog if name not in expected}
    neo.check_all({**last, **others})


def test_a_saved_fusion_is_its_tag(neo: Klein) -> None:
    tag = neo.picture(TAG)
    neo.check(0.5, 0.5)
    pair = {"content": "dog", "style": "vangogh", "mu": 0.5, "output": "saved", "dtype": "fp32"}
    answer = neo.host.call("/nplora/v1/fuse", pair)
    print(answer)
    saved = neo.picture("a cat <lora:saved:1>")
    neo.check(0.5, 0.5)
    print(f"saved against its tag: pixels {np.abs(saved - tag).max()}")
    assert np.abs(saved - tag).max() <= 1


def test_inspect_measures_every_layer(neo: Klein) -> None:
    """Slices of a layer one by one, as they are fused."""
    found = neo.host.call("/nplora/v1/inspect", {"content": "dog", "style": "vangogh", "mu": 0.5})
    expected = neo.overlaps()
    print(found["layers"], found["findings"], found["remarks"])
    assert found["layers"]["fused"] == len(expected)
    assert found["layers"]["not_matched"] == 0
    assert found["remarks"] == []
    assert {row["name"]: row["overlap"] for row in found["rows"]} == pytest.approx(expected, abs=1e-5)
