"""Fixtures that several folders of tests share; each module that runs the hosts' contract gives its own `driver`."""

from __future__ import annotations

import os

# Before numpy and torch: the matrices are small, and on busy cores threads wait for each other longer than they work.
os.environ["OMP_NUM_THREADS"] = "1"

import pytest
from hypothesis import settings

from .files import corpus
from .hosts.contract import Loras

settings.register_profile("patient", deadline=None)
settings.load_profile("patient")


@pytest.fixture(scope="class")
def loras(driver) -> Loras:
    return Loras(driver)


@pytest.fixture(scope="class")
def plain(driver, loras) -> tuple[str, ...]:
    """Pixels of the prompt that all others add tags to."""
    return driver.generate("a cat").pixels


@pytest.fixture(scope="session")
def bad_files(tmp_path_factory) -> corpus.Corpus:
    return corpus.generate(tmp_path_factory.mktemp("bad files"))
