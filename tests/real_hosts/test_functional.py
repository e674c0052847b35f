"""A1111 with its setting to apply LoRAs at each forward instead of once."""

from __future__ import annotations

import numpy as np
import pytest

from ..hosts.contract import Loras
from .driver import running

CLOSE = 2
"""What another order of adding up may change a value of a pixel by, out of 255."""


@pytest.fixture(scope="module")
def host(tmp_path_factory):
    with running("a1111", tmp_path_factory.mktemp("a1111")) as host:
        Loras(host)
        yield host


def off(one: np.ndarray, other: np.ndarray) -> int:
    return int(np.abs(one - other).max())


@pytest.mark.parametrize(
    "tag",
    [
        "<nplora:dog:vangogh:0>",
        "<nplora:dog:vangogh:hard:c=0.8:te=0.7>",
        "<nplora:dog:lokr:0.5>",
        "<nplora:knight:ink:method=klora>",
        "<nplora:dog:vangogh:0.5> <lora:hat:0.5>",
    ],
)
def test_the_picture_is_the_same_either_way(host, tag):
    merged, plain = (host.array(f"a cat {text}") for text in (tag, ""))
    host.set_option("lora_functional", True)
    try:
        at_forward, again = host.array(f"a cat {tag}"), host.array("a cat")
    finally:
        host.set_option("lora_functional", False)
    print(f"{tag}: {off(at_forward, merged)} of 255, by the tag itself {off(merged, plain)}")
    assert off(at_forward, merged) <= CLOSE
    assert off(merged, plain) > 4 * CLOSE
    assert np.array_equal(again, plain)
    assert np.array_equal(host.array(f"a cat {tag}"), merged)
    assert np.array_equal(host.array("a cat"), plain)
