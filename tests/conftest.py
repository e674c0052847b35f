"""Fixtures of the hosts' contract suite; each test module that runs it gives its own `driver`."""

from __future__ import annotations

import pytest

from .hosts.contract import Loras


@pytest.fixture(scope="class")
def loras(driver) -> Loras:
    return Loras(driver)


@pytest.fixture(scope="class")
def plain(driver, loras) -> tuple[str, ...]:
    """Pixels of the prompt that all others add tags to."""
    return driver.generate("a cat").pixels
