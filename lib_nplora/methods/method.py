"""What a fusion method is: a value that says what it reads, and what it makes of a layer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Union

from ..layers.weights import LoraWeights
from ..maths.delta import Delta
from ..maths.rank_rule import RankRule
from .layer import AnyNeed, Layer
from .parameter import Parameter, Values
from .selection import Contest, Rule, Schedule


@dataclass(frozen=True, eq=False)
class Sum:
    """A layer whose deltas are added up.

    contents, styles
        As the method changed them.
    protected
        Share of all directions that were projected off, 0 to 1; None if the method does not project.
    """

    contents: Sequence[Delta]
    styles: Sequence[Delta]
    protected: float | None = None


@dataclass(frozen=True)
class Turns:
    """A layer that is the contents' at some steps and the styles' at the others.

    contest
        What both sides weigh there.
    """

    contest: Contest


@dataclass(frozen=True)
class LeftOut:
    """A layer that stays as the model has it."""


Made = Union[Sum, Turns, LeftOut]  # noqa: UP007
"""What a method makes of a layer."""


SideWeights = tuple[float, float]
"""The content's and the style's."""

EQUAL: SideWeights = (1.0, 1.0)


@dataclass(frozen=True)
class Effect:
    """What a fusion came to, as far as a method has something to say of it.

    removed
        Share of the content's energy that was taken away, 0 to 1; None if the user is told of it anyway.
    protected
        Share of the directions that was protected, mean of the fused layers, 0 to 1.
    meets
        Whether both sides change a layer of the diffusion model.
    takes_turns
        Whether any layer does.
    """

    removed: float | None
    protected: float
    meets: bool
    takes_turns: bool


def added_up(layer: Layer) -> Sum:
    """The layer as two ordinary LoRA tags would have it."""
    return Sum(layer.content.deltas, layer.style.deltas)


def shared(layer: Layer) -> bool:
    """Both sides hold the layer, and it has an input side."""
    return layer.is_shared


def with_input_side(layer: Layer) -> bool:
    """The layer is no norm and no bias, whoever holds it."""
    return layer.has_input_side


def every(layer: Layer) -> bool:
    return True


@dataclass(frozen=True, eq=False)
class Method:
    """A fusion method.

    name
        In the tag.
    order
        Its place in lists, each once. A new one stands last, so that what its parameters add to lists of arguments
        stands last, too.
    about
        What it does, in a few words for the user.
    told
        What it does, in full, for the documents.
    source
        Where it comes from, for the documents.
    fuse
        (layer, the values that count there) -> what becomes of it.
    parameters
        What it reads, with its own defaults.
    needs
        What `fuse` asks layers for.
    takes
        The layers that `fuse` is for. The others are added up.
    weigh
        (a layer that both sides hold, the values that count there) -> what their weights are multiplied with before
        anything else.
    weighed_by
        Values -> the setting that weighs both sides so, as in the tag; empty if none does.
    would_weigh
        The setting that would make both sides equally strong, as in the tag; empty if the method has none.
    rule
        Values -> who wins the layers that take turns at which step; None if the method does not change with the steps.
    projects_by
        Values -> mu; None if the method does not take the content off the style's directions.
    directions
        Values -> how many directions are protected.
    fewer
        Settings with which fewer are protected, as in the tag; none if the method has none.
    check
        Raises RequestError for values that do not go together.
    check_pair
        Raises RequestError for (values, contents, styles) that the method can do nothing with.
    remarks
        (values, effect) -> what the user would not expect.
    """

    name: str
    order: int
    about: str
    told: str
    source: str
    fuse: Callable[[Layer, Values], Made]
    parameters: tuple[Parameter[Any], ...] = ()
    needs: tuple[AnyNeed, ...] = ()
    takes: Callable[[Layer], bool] = shared
    weigh: Callable[[Layer, Values], SideWeights] = lambda layer, values: EQUAL
    weighed_by: Callable[[Values], str] = lambda values: ""
    would_weigh: str = ""
    rule: Callable[[Values], Rule] | None = None
    projects_by: Callable[[Values], float] | None = None
    directions: Callable[[Values], RankRule] = lambda values: RankRule()
    fewer: tuple[str, ...] = ()
    check: Callable[[Values], None] = lambda values: None
    check_pair: Callable[[Values, Sequence[LoraWeights], Sequence[LoraWeights]], None] = lambda *pair: None
    remarks: Callable[[Values, Effect], Sequence[str]] = lambda values, effect: ()

    def __repr__(self) -> str:
        return f"<method {self.name}>"

    @property
    def changes_with_steps(self) -> bool:
        return self.rule is not None

    @property
    def observes(self) -> bool:
        """Whether it needs to see the model at work, which only a pipeline of diffusers lets it."""
        return any(need.observes for need in self.needs)

    def schedule(self, values: Values, contests: Mapping[Any, Contest]) -> Schedule | None:
        """Who wins the layers that take turns when, by what both sides weigh there; None if there are none."""
        return Schedule(contests, self.rule(values)) if self.rule and contests else None

    @property
    def takes_lone_layers(self) -> bool:
        """Whether it changes layers that only one side has."""
        return self.takes is not shared

    def parameter(self, name: str) -> Parameter[Any] | None:
        """Its own of that name."""
        return next((parameter for parameter in self.parameters if parameter.name == name), None)
