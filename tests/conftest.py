"""Fixtures that several folders of tests share; each module that runs the hosts' contract gives its own `driver`."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator

# Before numpy and torch: the matrices are small, and on busy cores threads wait for each other longer than they work.
os.environ["OMP_NUM_THREADS"] = "1"

import pytest
from hypothesis import settings
from xdist.scheduler import LoadScopeScheduling

from .files import corpus
from .hosts.contract import Loras
from .webui.browser.machine import GRADIOS

settings.register_profile("patient", deadline=None)
settings.load_profile("patient")


BROWSER = "webui/browser/"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Browser tests take longest, and leave their worker's core to others: they come first."""
    items.sort(key=lambda item: BROWSER not in item.nodeid)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """What is imported and collected stays: it need not be looked through for garbage again and again."""
    gc.disable()
    result = yield
    gc.freeze()
    gc.enable()
    return result


class Scheduling(LoadScopeScheduling):
    """Gives all browser tests of one Gradio to one worker, so that their page starts once."""

    def _split_scope(self, nodeid: str) -> str:
        of = [gradio for gradio in GRADIOS if BROWSER in nodeid and f"[{gradio}" in nodeid]
        return of[0] if of else super()._split_scope(nodeid)


def pytest_xdist_make_scheduler(config, log) -> Scheduling:
    return Scheduling(config, log)


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
