"""What every host must give its users. Runs on the stand-ins in CI, and on the real hosts where they are.

The numbers in the names: 1 weights, 2 limits of mu, 3 kinds, spellings and neighbours, 4 reversibility, 5 kinds of job,
6 other callers, 7 no work twice, 8 infotext, 9 the panel, 10 plots, 11 settings, 12 methods that change with the steps,
13 the other methods, 14 strengths by block, 15 balance, 16 what is said of a picture.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from .group_01_weights import Weights
from .group_02_limits import Limits
from .group_03_kinds import Kinds
from .group_03_spellings import Spellings
from .group_04_reversibility import Reversibility
from .group_05_jobs import Jobs
from .group_06_callers import Callers
from .group_07_no_work_twice import NoWorkTwice
from .group_08_infotext import Infotext
from .group_09_panel import Panel
from .group_10_plots import Plots
from .group_11_settings import Settings
from .group_12_neighbours import StepsBesideOthers
from .group_12_steps import Steps
from .group_13_methods import Methods
from .group_14_blocks import Blocks
from .group_15_balance import Balance
from .group_16_said import Said
from .loras import HARD, KLORA, Loras
from .wrong_tags import WrongTags

__all__ = ["HARD", "KLORA", "HostContract", "Loras"]


class HostContract(
    Said,
    Balance,
    Blocks,
    Methods,
    StepsBesideOthers,
    Steps,
    Settings,
    Plots,
    Panel,
    Infotext,
    NoWorkTwice,
    Callers,
    Jobs,
    Reversibility,
    WrongTags,
    Spellings,
    Kinds,
    Limits,
    Weights,
):
    """Needs a fixture `driver` of class scope; `loras` and `plain` stand in tests/conftest.py.

    The last group first: pytest runs a class's inherited tests from its last base on.
    """

    @pytest.fixture
    def watching(self, driver) -> Iterator[Callable[..., None]]:
        """The driver's `watch`, which ends with the test."""
        yield driver.watch
        driver.watch({})
