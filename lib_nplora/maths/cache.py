"""A cache bounded by bytes that never drops what the work in progress has used."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any, Protocol, TypeVar


class Sized(Protocol):
    @property
    def nbytes(self) -> int: ...


T = TypeVar("T", bound=Sized)


class ByteLru:
    """Least recently used values go first once their sum passes `max_bytes`.

    Values used since the last `begin_round` stay: a walk over the layers of one large LoRA must not evict its own first
    layers. If they alone pass `max_bytes`, the rest of the round is kept too, or, if `strict`, made anew each time.
    """

    def __init__(self, max_bytes: int, strict: bool = False) -> None:
        self.max_bytes = max_bytes
        self.strict = strict
        self._entries: OrderedDict[Hashable, tuple[int, Any]] = OrderedDict()
        self._round = 0
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def nbytes(self) -> int:
        return self._bytes

    def begin_round(self) -> None:
        """What was used before may now be dropped."""
        self._round += 1

    def get(self, key: Hashable, make: Callable[[], T]) -> T:
        """The value under `key`, made now if it is not there."""
        if key in self._entries:
            value: T = self._entries.pop(key)[1]
        else:
            self._evict()
            value = make()
            self._bytes += value.nbytes
        self._entries[key] = self._round, value
        self._evict()
        if self.strict and self._bytes > self.max_bytes:
            del self._entries[key]
            self._bytes -= value.nbytes
        return value

    def clear(self) -> None:
        self._entries.clear()
        self._bytes = 0

    def _evict(self) -> None:
        while self._bytes > self.max_bytes:
            last_used, value = next(iter(self._entries.values()))
            if last_used == self._round:
                return
            self._entries.popitem(last=False)
            self._bytes -= value.nbytes
