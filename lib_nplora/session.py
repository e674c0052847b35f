"""One a process: request -> load -> fuse -> apply. Owns all state, and lets no exception out."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

from .cache import ByteLru
from .errors import NploraError, RequestError
from .fusion import fingerprint, fuse
from .hosts.protocol import Host, LoraFile
from .methods import method_named
from .request import FusionRequest, format_number
from .weights import FusedLora, LoraWeights

logger = logging.getLogger("nplora")

GIB = 2**30
SMALL_EFFECT = 0.01
"""Share of the content's energy under which a projection is hardly seen, and is said to be so."""


@dataclass(frozen=True)
class Asked:
    """A fusion that a prompt asks for.

    tag
        The text in the prompt.
    request
        What it says, or why it cannot be read.
    by_role
        Whether it is spelled as roles on ordinary LoRA tags, which the host merges plainly if we do not fuse them.
    """

    tag: str
    request: FusionRequest | RequestError
    by_role: bool = False


@dataclass(frozen=True, eq=False)
class Plan:
    """What a prompt comes to.

    honoured
        The requests that will be applied, with their fusions.
    comments
        For the picture.
    files
        Every LoRA that goes into the picture, by the name that the prompt gives it.
    """

    asked: Sequence[Asked]
    honoured: Mapping[Asked, FusedLora]
    comments: Sequence[str]
    files: Mapping[str, LoraFile]

    @property
    def by_role(self) -> bool:
        """Whether LoRAs that the host would merge plainly are fused instead."""
        return any(asked.by_role for asked in self.honoured)


@dataclass(frozen=True)
class Applied:
    """What became of a plan.

    problems
        For the picture. If there is any, nothing at all is applied.
    stale_text
        The same tags meant other weights last time (a file was replaced, say), so text that was encoded for these tags
        then must be encoded again.
    """

    problems: Sequence[str]
    stale_text: bool


class Session:
    """The fusions of one running WebUI."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._loras = ByteLru(2 * GIB)
        self._bases = ByteLru(GIB)
        self._fused = ByteLru(GIB)
        self._model: Hashable = None
        self._meant: OrderedDict[tuple[str, ...], tuple[str, ...]] = OrderedDict()

    def prepare(self, asked: Sequence[Asked]) -> Plan:
        """Fuse what a prompt asks for. Applies nothing yet. A request that fails becomes a comment."""
        honoured: dict[Asked, FusedLora] = {}
        comments: list[str] = []
        files: dict[str, LoraFile] = {}
        for one in asked:
            try:
                if isinstance(one.request, RequestError):
                    raise one.request
                self._begin()
                used, fused, remarks = self._fuse(one.request)
            except Exception as error:
                comments.append(_comment(one, _reason(error)))
                continue
            honoured[one] = fused
            files.update(used)
            comments.extend(_comment(one, remark) for remark in remarks)
        return Plan(asked, honoured, comments, files)

    def apply(self, plan: Plan) -> Applied:
        """Make the plan, and nothing else of ours, part of the model."""
        by_fingerprint = {fused.fingerprint: fused for fused in plan.honoured.values()}
        problems: list[str] = []
        try:
            if by_fingerprint:
                self._host.apply(list(by_fingerprint.values()))
            else:
                self._host.clear()
        except Exception as error:
            problems = [_comment(asked, _reason(error)) for asked in plan.honoured]
            by_fingerprint = {}
            self.clear()
        return Applied(problems, self._means_other(plan.asked, tuple(by_fingerprint)))

    def clear(self) -> None:
        """Leave the model as it would be without us. What was read and decomposed is kept."""
        try:
            self._host.clear()
        except Exception:
            logger.exception("cannot clear")

    def _begin(self) -> None:
        for cache in (self._loras, self._bases, self._fused):
            cache.begin_round()
        model = self._host.model_token()
        if model != self._model:
            self._model = model
            self._loras.clear()
            self._fused.clear()

    def _fuse(self, request: FusionRequest) -> tuple[dict[str, LoraFile], FusedLora, list[str]]:
        method_named(request.method)
        files = {source.name: self._host.resolve(source.name) for source in (*request.contents, *request.styles)}
        _refuse_same_file(request, files)
        contents, styles = (
            [self._load(files[source.name]) for source in side] for side in (request.contents, request.styles)
        )
        key = fingerprint(request, contents, styles)
        fused = self._fused.get(key, lambda: fuse(request, contents, styles, self._bases))
        return files, fused, _remarks(request, fused, [*contents, *styles])

    def _load(self, file: LoraFile) -> LoraWeights:
        return self._loras.get(file.stamp, lambda: self._host.load(file))

    def _means_other(self, asked: Sequence[Asked], now: tuple[str, ...]) -> bool:
        """Whether the same tags meant other weights last time."""
        tags = tuple(one.tag for one in asked)
        before = self._meant.pop(tags, now)
        self._meant[tags] = now
        while len(self._meant) > 64:
            self._meant.popitem(last=False)
        return before != now


def _refuse_same_file(request: FusionRequest, files: Mapping[str, LoraFile]) -> None:
    contents = {files[source.name].path: source.name for source in request.contents}
    for style in request.styles:
        path = files[style.name].path
        if path in contents:
            both = dict.fromkeys((contents[path], style.name))
            names = " and ".join(f"'{name}'" for name in both)
            raise RequestError(f"{names} would be content and style at once. Name two different LoRAs")


def _remarks(request: FusionRequest, fused: FusedLora, loras: Sequence[LoraWeights]) -> list[str]:
    """What the user would not expect of this fusion."""
    logger.info("%s: %s", fused.title, fused.summary)
    remarks = [
        f"{len(lora.unmatched)} of the modules in '{lora.name}' have no layer in this model and are left out"
        for lora in loras
        if lora.unmatched
    ]
    if not fused.summary.any_fused:
        remarks.append("the LoRAs have no layer in common, so they are merged plainly")
    elif fused.summary.both_alone:
        remarks.append(f"each LoRA has layers that the other lacks, which are added as they are ({fused.summary})")
    if request.mu > 0 and method_named(request.method).needs_basis and 0 < fused.summary.removed < SMALL_EFFECT:
        remarks.append(
            f"these LoRAs hardly overlap, so expect a small change: mu={format_number(request.mu)} removes "
            f"{100 * fused.summary.removed:.2f} % of the content's energy"
        )
    return remarks


def _reason(error: Exception) -> str:
    if isinstance(error, NploraError):
        return str(error)
    logger.error("this should not happen", exc_info=error)
    return f"{type(error).__name__}: {error} (details are in the console)"


def _comment(asked: Asked, text: str) -> str:
    return f"NP-LoRA: {asked.tag}: {text}"
