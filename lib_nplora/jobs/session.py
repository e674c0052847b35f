"""One a process: request -> load -> fuse -> apply. Owns all state, and lets no exception out."""

from __future__ import annotations

import logging
import os
from collections import OrderedDict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

from ..errors import FileError, NploraError, RequestError
from ..fusion.fused import FusedLora
from ..fusion.walk import fingerprint, fuse, settings_of, unread
from ..hosts.protocol import Host, LoraFile
from ..layers.weights import DeltaMap, LoraWeights
from ..maths.cache import ByteLru
from ..maths.dense import DenseDelta
from ..methods.table import Basis, method_named
from ..request.request import FusionRequest, format_number
from .traits import accelerator, family

logger = logging.getLogger("nplora")

GIB = 2**30
SMALL_EFFECT = 0.01
"""Share of the content's energy under which a projection is hardly seen, and is said to be so."""

MANY_DIRECTIONS = 0.5
"""Share of the directions over which a style's basis leaves hardly any content, as one that has no small rank does."""


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
    problems
        Why the other requests will not be, for the picture.
    remarks
        What the user would not expect of those that will, for the picture.
    files
        Every LoRA that goes into the picture, by the name that the prompt gives it.
    """

    asked: Sequence[Asked]
    honoured: Mapping[Asked, FusedLora]
    problems: Sequence[str]
    remarks: Sequence[str]
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

    def __init__(self, host: Host, cache_gib: float = 5) -> None:
        self.host = host
        self._loras = ByteLru(0)
        self._bases = ByteLru(0, strict=True)
        self._fused = ByteLru(0)
        self.resize(cache_gib)
        self._model: Hashable = None
        self._contested: dict[Asked, FusedLora] = {}
        self._meant: OrderedDict[tuple[str, ...], tuple[str, ...]] = OrderedDict()

    def resize(self, cache_gib: float) -> None:
        """Bound what is kept between pictures: LoRAs, decompositions and fusions."""
        for cache, share in ((self._loras, 0.4), (self._bases, 0.4), (self._fused, 0.2)):
            cache.max_bytes = int(share * cache_gib * GIB)

    def prepare(self, asked: Sequence[Asked]) -> Plan:
        """Fuse what a prompt asks for. Applies nothing yet. A request that fails becomes a comment."""
        honoured: dict[Asked, FusedLora] = {}
        problems: list[str] = []
        remarks: list[str] = []
        files: dict[str, LoraFile] = {}
        self._forget_other_models()
        for one in asked:
            try:
                if isinstance(one.request, RequestError):
                    raise one.request
                for cache in (self._loras, self._bases, self._fused):
                    cache.begin_round()
                used, fused, unexpected = self._fuse(one.request)
            except Exception as error:
                problems.append(_comment(one, _reason(error)))
                continue
            honoured[one] = fused
            files.update(used)
            remarks.extend(_comment(one, remark) for remark in unexpected)
        return Plan(asked, honoured, problems, remarks, files)

    def apply(self, plan: Plan) -> Applied:
        """Make the plan, and nothing else of ours, part of the model."""
        by_fingerprint = {fused.fingerprint: fused for fused in plan.honoured.values()}
        problems: list[str] = []
        try:
            if by_fingerprint:
                self.host.apply(list(by_fingerprint.values()))
            else:
                self.host.clear()
        except Exception as error:
            problems = [_comment(asked, _reason(error)) for asked in plan.honoured]
            by_fingerprint = {}
            self.clear()
        else:
            self._contested = {asked: fused for asked, fused in plan.honoured.items() if fused.schedule}
        return Applied(problems, self._means_other(plan.asked, tuple(by_fingerprint)))

    @property
    def changes_with_steps(self) -> bool:
        """Whether `step` has anything to do."""
        return bool(self._contested)

    def step(self, step: int, steps: int) -> list[str]:
        """Give each contested layer to its winner of this step. To be called before the model is.

        Returns what went wrong, for the picture. What fails once is left as it is for the rest of the picture.
        """
        problems = []
        for asked, fused in list(self._contested.items()):
            assert fused.schedule is not None
            try:
                self.host.swap(fused, fused.schedule.winners(step, steps))
            except Exception as error:
                del self._contested[asked]
                problems.append(_comment(asked, f"stopped changing at step {step + 1} of {steps}: {_reason(error)}"))
        return problems

    def clear(self) -> None:
        """Leave the model as it would be without us. What was read and decomposed is kept."""
        self._contested = {}
        try:
            self.host.clear()
        except Exception:
            logger.exception("cannot clear")

    def _forget_other_models(self) -> None:
        """What was read for the model before the last switch fits no other, and would keep it in memory."""
        try:
            model = self.host.model_token()
        except Exception as error:
            logger.debug("no model is loaded: %s", error)
            return
        if model != self._model:
            self._model = model
            self._loras.clear()
            self._fused.clear()

    def _fuse(self, request: FusionRequest) -> tuple[dict[str, LoraFile], FusedLora, list[str]]:
        settings_of(request)
        files = {source.name: self.host.resolve(source.name) for source in (*request.contents, *request.styles)}
        _refuse_same_file(request, files)
        contents, styles = (
            [self._load(files[source.name]) for source in side] for side in (request.contents, request.styles)
        )

        def make() -> FusedLora:
            for lora in (*contents, *styles):
                if isinstance(lora.deltas, DeltaMap) and lora.deltas.made:
                    logger.info("%s: %d layers have no factors, which takes a while", lora.name, lora.deltas.made)
            return fuse(request, contents, styles, self._bases)

        fused = self._fused.get(fingerprint(request, contents, styles), make)
        remarks = _remarks_on_files(list(files.values())) + _remarks(request, fused, contents, styles)
        return files, fused, remarks

    def _load(self, file: LoraFile) -> LoraWeights:
        return self._loras.get(file.stamp, lambda: self._read(file))

    def _read(self, file: LoraFile) -> LoraWeights:
        try:
            return self.host.load(file)
        except NploraError:
            raise
        except Exception as error:
            logger.warning("cannot read %s", file.path, exc_info=True)
            problem = f"{type(error).__name__}: {error}"
            raise FileError(
                f"'{file.name}' cannot be read ({problem}): it is damaged, or of a kind that this WebUI does not know"
            ) from error

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


def _remarks_on_files(files: Sequence[LoraFile]) -> list[str]:
    """What makes a LoRA, or a pair, a strange choice."""
    remarks = [
        f"'{file.name}' looks like an accelerator LoRA ({kind}), which has no subject and no style: "
        "use an ordinary <lora:...> tag for it"
        for file in files
        if (kind := accelerator(file.name) or accelerator(os.path.basename(file.path)))
    ]
    families = {label: file.name for file in files if (label := family(file.metadata))}
    if len(families) > 1:
        made = " and ".join(f"'{name}' for {label}" for label, name in families.items())
        remarks.append(f"these LoRAs are made for different models, {made}: the result may be noise")
    return remarks


def _remarks(
    request: FusionRequest, fused: FusedLora, contents: Sequence[LoraWeights], styles: Sequence[LoraWeights]
) -> list[str]:
    """What the user would not expect of this fusion."""
    method = method_named(request.method)
    logger.info("%s: %s", fused.title, fused.summary)
    remarks = []
    summary = fused.summary
    for role, sources, side, energy in (
        ("content", request.contents, contents, summary.content_energy),
        ("style", request.styles, styles, summary.style_energy),
    ):
        weights = (
            getattr(source, key.part) * getattr(request, key.part)
            for source, lora in zip(sources, side)
            for key in lora.deltas
        )
        if energy == 0 and any(weights):
            remarks.append(f"the {role} changes nothing: its alpha is 0, or all its values are")
    if not summary.any_fused and not method.owner:
        remarks.append("the LoRAs have no layer in common, so they are merged plainly")
    if not summary.as_asked and (summary.any_fused or summary.not_matched):
        left_out = [
            f"{len(lora.unmatched)} of the modules in '{lora.name}' fit no layer of this model"
            for lora in (*contents, *styles)
            if lora.unmatched
        ]
        remarks.append("; ".join([f"not everything could be fused: {summary}", *left_out]))
    remarks.extend(unread(request))
    if (whole := sum(delta.nbytes for delta in fused.deltas.values() if isinstance(delta, DenseDelta))) > GIB:
        remarks.append(f"its layers have no small rank, so it takes {whole / GIB:.1f} GiB of memory")
    meet = any(
        key.part == "unet" and layer.content_energy and layer.style_energy for key, layer in summary.layers.items()
    )
    if method.rule and not fused.schedule and meet:
        remarks.append(f"no layer of scope={settings_of(request).scope} is in both LoRAs, so they are merged plainly")
    if method.basis in (Basis.STYLE_INPUT, Basis.STYLE_OUTPUT) and ("mu" not in method.reads or request.mu > 0):
        cause = f"mu={format_number(request.mu)}" if "mu" in method.reads else f"method={request.method}"
        removed = f"{cause} removes {100 * summary.removed:.2f} % of the content's energy"
        if 0 < summary.removed < SMALL_EFFECT:
            remarks.append(f"these LoRAs hardly overlap, so expect a small change: {removed}")
        elif summary.protected > MANY_DIRECTIONS:
            remarks.append(
                f"the style uses {100 * summary.protected:.0f} % of all directions, so little content is left: "
                f"{removed}. Try k=32"
            )
    return remarks


def _reason(error: Exception) -> str:
    if isinstance(error, NploraError):
        return error.told("WebUI")
    logger.error("this should not happen", exc_info=error)
    return f"{type(error).__name__}: {error} (details are in the console)"


def _comment(asked: Asked, text: str) -> str:
    """In one line: a host's own words may be more."""
    return f"NP-LoRA: {asked.tag}: {' '.join(text.split())}"
