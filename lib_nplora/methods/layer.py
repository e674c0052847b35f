"""What a method is shown of a layer, and what it needs besides."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Protocol, TypeVar

from ..layers.key import ModuleKey
from ..maths.delta import Delta

if TYPE_CHECKING:
    from .moments import Moments


class Sized(Protocol):
    @property
    def nbytes(self) -> int: ...


T = TypeVar("T", bound=Sized)
U = TypeVar("U")


@dataclass(frozen=True, eq=False)
class Share:
    """What one LoRA holds for the layer at hand, or for a slice of it.

    name, digest
        The LoRA's: equal digests, equal deltas.
    key
        Under which the LoRA holds it.
    delta
        All that it holds there, weight 1.
    weight
        How strongly it is to be added.
    start, stop
        The layer's output rows that `delta` is for.
    """

    name: str
    digest: str
    key: ModuleKey
    delta: Delta
    weight: float
    start: int
    stop: int

    def covers(self, start: int, stop: int) -> bool:
        return self.start <= start and stop <= self.stop

    def rows(self, start: int, stop: int) -> Delta:
        """The delta of these of the layer's rows, weight 1."""
        if (start, stop) == (self.start, self.stop):
            return self.delta
        return self.delta.rows(start - self.start, stop - self.start)


@dataclass(frozen=True, eq=False)
class Side:
    """The contents or the styles of the rows at hand.

    shares
        One a LoRA that holds these rows.
    start, stop
        The layer's output rows at hand.
    """

    shares: Sequence[Share]
    start: int
    stop: int

    def __bool__(self) -> bool:
        return bool(self.shares)

    @cached_property
    def deltas(self) -> list[Delta]:
        """Those of the rows at hand, weights included."""
        return [share.rows(self.start, self.stop).scaled(share.weight) for share in self.shares]

    @cached_property
    def plain(self) -> list[Delta]:
        """Those of the rows at hand, weight 1 each."""
        return [share.rows(self.start, self.stop) for share in self.shares]

    @property
    def modules(self) -> list[Delta]:
        """Those of whole modules, which slices of them share on the input side, weight 1 each."""
        return [share.delta for share in self.shares]

    @property
    def identity(self) -> tuple[tuple[str, ModuleKey], ...]:
        """Equal for equal `modules`."""
        return tuple((share.digest, share.key) for share in self.shares)

    def scaled(self, weight: float) -> Side:
        """weight * side."""
        if weight == 1:
            return self
        return Side([replace(share, weight=weight * share.weight) for share in self.shares], self.start, self.stop)

    def one_weight(self) -> tuple[float, Side]:
        """(factor, side), whose product this side is. The factor is 1 unless there is one LoRA: its weight is free."""
        if len(self.shares) != 1:
            return 1.0, self
        share = self.shares[0]
        return share.weight, Side([replace(share, weight=1.0)], self.start, self.stop)

    @cached_property
    def energy(self) -> float:
        """Sum of the squared Frobenius norms, weights included."""
        return sum(delta.energy() for delta in self.deltas)


class Walk(Protocol):
    """What a need may ask of whoever walks over the layers."""

    def kept(self, key: Hashable, make: Callable[[], Sized]) -> Any:
        """What `make` gives, kept under `key` as long as memory allows."""

    def once(self, need: AnyNeed, make: Callable[[Iterable[Layer]], Any]) -> Any:
        """What `make` gives of all layers, made once a fusion."""

    def seen(self, layer: Layer) -> Moments:
        """What was seen of the layer in the model at work."""


@dataclass(frozen=True, eq=False)
class AnyNeed(ABC):
    """Something that a method reads besides the deltas. Each kind of need is a class, which says how it is fulfilled.

    observes
        Whether the model has to be run for it.
    """

    name: str
    observes: ClassVar[bool] = False

    @abstractmethod
    def fulfilled(self, walk: Walk, layer: Layer) -> Any:
        """The value for a layer, made or found with what the walk has."""


@dataclass(frozen=True, eq=False)
class Need(AnyNeed, Generic[T]):
    """What is made of a layer, once, and kept as long as memory allows.

    name
        What is made: equal names and equal keys mean equal values.
    depends_on
        Layer -> the key under which the value is kept.
    make
        Layer -> the value.
    """

    depends_on: Callable[[Layer], Hashable]
    make: Callable[[Layer], T]

    def fulfilled(self, walk: Walk, layer: Layer) -> T:
        found: T = walk.kept((self.name, self.depends_on(layer)), lambda: self.make(layer))
        return found

    def of(self, layer: Layer) -> T:
        """The value for a layer, by whoever walks over the layers."""
        value: T = layer.fulfil(self, layer)
        return value


@dataclass(frozen=True, eq=False)
class Overall(AnyNeed, Generic[U]):
    """What is made of all layers together, once a fusion.

    make
        All layers -> the value.
    """

    make: Callable[[Iterable[Layer]], U]

    def fulfilled(self, walk: Walk, layer: Layer) -> U:
        found: U = walk.once(self, self.make)
        return found

    def of(self, layer: Layer) -> U:
        """The value, by whoever walks over the layers."""
        value: U = layer.fulfil(self, layer)
        return value


@dataclass(frozen=True, eq=False)
class Observed(AnyNeed):
    """What a method reads of the model at work: it has to be run for that, so only some hosts can tell. See moments."""

    observes: ClassVar[bool] = True

    def fulfilled(self, walk: Walk, layer: Layer) -> Moments:
        return walk.seen(layer)

    def of(self, layer: Layer) -> Moments:
        """The value for a layer, by whoever walks over the layers."""
        value: Moments = layer.fulfil(self, layer)
        return value


@dataclass(frozen=True, eq=False)
class Layer:
    """What the LoRAs hold for a layer, or for some of its rows.

    key
        The layer's; with rows if only some LoRAs hold it whole.
    content, style
        One of them may be empty.
    fulfil
        Makes or finds what a need asks for of a layer.
    """

    key: ModuleKey
    content: Side
    style: Side
    fulfil: Callable[[AnyNeed, Layer], Any]

    def weighed(self, content: float, style: float) -> Layer:
        """The layer with its sides' weights multiplied."""
        return replace(self, content=self.content.scaled(content), style=self.style.scaled(style))

    @property
    def has_input_side(self) -> bool:
        """Whether there is something to project: norms and biases have no input side."""
        return all(share.delta.has_input_side for side in (self.content, self.style) for share in side.shares)

    @property
    def is_shared(self) -> bool:
        """Whether both sides hold it, with an input side."""
        return bool(self.content and self.style) and self.has_input_side
