"""Which layers the suite looks at."""

from __future__ import annotations

from ..driver import Driver, Module


def some_layers(driver: Driver) -> list[str]:
    """Names of layers of every kind and part, few enough to be fetched one by one."""
    names = [module.name for module in driver.modules]
    return names[:: max(1, len(names) // 12)]


def sample(driver: Driver) -> tuple[Module, ...]:
    """A small layer of every part, kernel and proportion."""

    def kind(module: Module) -> tuple[str, int, bool, bool]:
        return module.name[:7], module.kernel, module.out > module.inp, module.out < module.inp

    largest_first = sorted(driver.modules, key=lambda module: -module.out * module.inp)
    return tuple({kind(module): module for module in largest_first}.values())
