"""What the panel says of a pair by itself, and when it does not."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest

from lib_nplora.errors import FileError, MismatchError
from lib_nplora.findings.sentences import verdict
from lib_nplora.jobs.pair import FilePair, inspect_files
from lib_nplora.request.request import FusionRequest, Source
from lib_nplora.webui import verdicts
from tests import loras


@pytest.fixture
def pair(tmp_path):
    for name, seed in (("c", 1), ("s", 2)):
        loras.write(tmp_path / f"{name}.safetensors", loras.random_lora(loras.SD1, 4, seed))
    request = FusionRequest.of((Source("c"),), (Source("s"),), mu=2.0)
    return FilePair(tmp_path / "c.safetensors", tmp_path / "s.safetensors", request)


def test_a_quick_pair_is_told_as_inspect_tells_it(pair):
    assert str(verdicts.quick(pair)) == str(verdict(inspect_files(pair), pair.request))


def test_another_mu_reads_no_file_again(pair, monkeypatch):
    verdicts.quick(pair)
    monkeypatch.setattr(verdicts, "inspect_files", None)
    assert "mu = 0.25 removes" in str(verdicts.quick(replace(pair, request=pair.request.with_values(mu=0.25))))


@pytest.mark.parametrize("limit", ["SECONDS", "MOST_BYTES"])
def test_what_takes_longer_is_not_told_until_it_was_inspected(pair, monkeypatch, limit):
    monkeypatch.setattr(verdicts, limit, -1)
    assert verdicts.quick(pair) is None
    verdicts.keep(pair, inspect_files(pair))
    assert "mu = 2 removes" in str(verdicts.quick(pair))


def test_a_pair_that_was_slow_once_is_tried_again(pair, monkeypatch):
    with monkeypatch.context() as slow:
        slow.setattr(verdicts, "SECONDS", -1)
        assert verdicts.quick(pair) is None
    assert "mu = 2 removes" in str(verdicts.quick(pair))


def test_a_slow_machine_comes_to_the_same_verdict(pair, monkeypatch):
    told = str(verdict(inspect_files(pair), pair.request))
    monkeypatch.setattr(verdicts, "SECONDS", 5)
    seconds = itertools.count()
    monkeypatch.setattr(verdicts, "monotonic", lambda: next(seconds))
    said = [verdicts.quick(pair) for _ in range(12)]
    assert said[0] is None
    assert str(said[-1]) == told


def test_a_replaced_file_is_read_again(pair):
    before = str(verdicts.quick(pair))
    loras.write(pair.content, loras.random_lora(loras.SD1, 8, 3))
    assert str(verdicts.quick(pair)) != before


def test_two_that_make_no_pair_are_refused(pair, tmp_path):
    loras.write(tmp_path / "xl.safetensors", loras.random_lora(loras.SDXL, 4, 1))
    with pytest.raises(MismatchError):
        verdicts.quick(replace(pair, style=tmp_path / "xl.safetensors"))
    with pytest.raises(FileError):
        verdicts.quick(replace(pair, style=tmp_path / "none.safetensors"))
