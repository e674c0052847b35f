"""Networks other than LoRA with something missing, misshapen, or too much."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from .bad_rows import CONV, KEY, NORM, QUERY, Row, Tensors, changed, instead, lora, normal, packed, whole

NAN = float("nan")

SOUND: dict[str, Tensors] = {
    "loha": {
        "hada_w1_a": normal(8, 2),
        "hada_w1_b": normal(2, 8),
        "hada_w2_a": normal(8, 2),
        "hada_w2_b": normal(2, 8),
    },
    "lokr": {"lokr_w1": normal(2, 2), "lokr_w2_a": normal(4, 2), "lokr_w2_b": normal(2, 4)},
    "lokr of factors": {
        "lokr_w1_a": normal(2, 1),
        "lokr_w1_b": normal(1, 2),
        "lokr_w2_a": normal(4, 1),
        "lokr_w2_b": normal(1, 4),
    },
    "lokr of wholes": {"lokr_w1": normal(2, 2), "lokr_w2": normal(4, 4)},
    "full": {"diff": normal(8, 8)},
    "glora": {"a1": normal(8, 2), "a2": normal(2, 8), "b1": normal(8, 2), "b2": normal(2, 8)},
    "ia3": {"weight": normal(8), "on_input": torch.tensor(False)},
    "oft": {"oft_blocks": normal(2, 4, 4), "alpha": torch.tensor(0.0)},
    "boft": {"oft_blocks": normal(2, 4, 2, 2), "alpha": torch.tensor(0.0)},
    "dora": {"lora_up": normal(8, 2), "lora_down": normal(2, 8), "dora_scale": torch.ones(8, 1)},
}
"""What a sound layer of each kind holds, 8 wide."""

WITHOUT_BASE = ("loha", "lokr", "lokr of factors", "lokr of wholes", "full")


def rows() -> Iterator[Row]:
    yield from _sound()
    yield from _missing()
    yield from _misshapen()
    yield from _values()
    yield from _mixed()
    yield from _bombs()


def _sound() -> Iterator[Row]:
    for kind, roles in SOUND.items():
        what = f"one layer a {kind}" if kind in WITHOUT_BASE else f"one layer a {kind}, which needs the model's weights"
        yield Row(what, instead(**roles), fine=kind in WITHOUT_BASE)
    yield Row("a norm", packed({**whole(), f"{NORM}.w_norm": normal(8), f"{NORM}.b_norm": normal(8)}), fine=True)
    yield Row("a norm without its bias", packed({**whole(), f"{NORM}.w_norm": normal(8)}), fine=True)
    yield Row("a bias beside a full layer", instead(diff=normal(8, 8), diff_b=normal(8)), fine=True)
    yield Row("a bias beside a lora", changed(diff_b=normal(8)), fine=True)


def _missing() -> Iterator[Row]:
    for kind in ("loha", "lokr", "lokr of factors", "lokr of wholes", "glora", "ia3"):
        for role in SOUND[kind]:
            rest = {name: tensor for name, tensor in SOUND[kind].items() if name != role}
            yield Row(f"{kind} without {role}", instead(**rest))
    yield Row("dora_scale alone", instead(dora_scale=torch.ones(8, 1)))
    yield Row("dora_scale beside up alone", instead(lora_up=normal(8, 2), dora_scale=torch.ones(8, 1)))
    yield Row("peft's magnitude alone", packed({**whole(), "unet.conv_in.lora_magnitude_vector": torch.ones(8)}))
    yield Row("rescale alone", instead(rescale=torch.ones(8, 1)))
    roles = {name: normal(2, 8) for name in SOUND["loha"]}
    yield Row("loha with one core of two", instead(CONV, **roles, hada_t1=normal(2, 2, 3, 3)))
    yield Row("cores of loha alone", instead(CONV, hada_t1=normal(2, 2, 3, 3), hada_t2=normal(2, 2, 3, 3)))
    yield Row("lokr with a core beside a whole", instead(CONV, **SOUND["lokr of wholes"], lokr_t2=normal(2, 2, 3, 3)))
    yield Row("alpha of a loha that is not there", instead(alpha=torch.tensor(1.0)))


def _misshapen() -> Iterator[Row]:
    def loha(**roles: Tensor) -> bytes:
        return instead(**{**SOUND["loha"], **roles})

    def lokr(**roles: Tensor) -> bytes:
        return instead(**{**SOUND["lokr"], **roles})

    yield Row("loha of ranks that differ", loha(hada_w1_a=normal(8, 3)))
    yield Row("loha whose halves differ in height", loha(hada_w1_a=normal(9, 2)))
    yield Row("loha with a half of one row", loha(hada_w1_a=normal(1, 2)))
    yield Row("loha whose halves differ in width", loha(hada_w2_b=normal(2, 9)))
    yield Row(
        "loha of rank 0",
        instead(**{name: torch.zeros(8, 0) if name[-1] == "a" else torch.zeros(0, 8) for name in SOUND["loha"]}),
        fine=True,
    )
    for dimensions in (0, 1, 3, 5):
        yield Row(f"loha of {dimensions} dimensions", loha(hada_w1_a=torch.ones([2] * dimensions)))
        yield Row(f"lokr of {dimensions} dimensions", lokr(lokr_w1=torch.ones([2] * dimensions)), reads=dimensions > 2)
    yield Row("lokr of ranks that differ", lokr(lokr_w2_a=normal(4, 3)))
    yield Row("lokr of rank 0", lokr(lokr_w2_a=torch.zeros(4, 0), lokr_w2_b=torch.zeros(0, 4)), fine=True)
    yield Row("lokr without size", lokr(lokr_w1=torch.zeros(0, 0)))
    yield Row("lokr of another layer's size", lokr(lokr_w1=normal(3, 3)), reads=True)
    yield Row("lokr with w1 twice", lokr(lokr_w1_a=normal(2, 1), lokr_w1_b=normal(1, 2)))
    yield Row("lokr with w2 twice", lokr(lokr_w2=normal(4, 4)))
    for dimensions in (0, 5, 6):
        yield Row(f"full of {dimensions} dimensions", instead(diff=torch.ones([2] * dimensions)))
    yield Row("full of 1 dimension where there is a matrix", instead(diff=normal(8)), reads=True)
    yield Row("full of another layer's size", instead(diff=normal(8, 9)), reads=True)
    yield Row("full without size", instead(diff=torch.zeros(0, 8)))
    yield Row("a bias that is a matrix", instead(diff=normal(8, 8), diff_b=normal(8, 8)))
    yield Row("a bias that is one number", instead(diff=normal(8, 8), diff_b=torch.tensor(1.0)))
    yield Row("a norm that is a matrix", packed({**whole(), f"{NORM}.w_norm": normal(8, 8)}))
    yield Row("a norm without size", packed({**whole(), f"{NORM}.w_norm": torch.zeros(0)}))
    for kind, role, tensor in (
        ("glora", "a1", normal(9, 2)),
        ("glora", "b2", normal(8)),
        ("ia3", "weight", normal(8, 8)),
        ("ia3", "on_input", torch.ones(8)),
        ("oft", "oft_blocks", normal(8)),
        ("oft", "oft_blocks", normal(2, 4, 3)),
        ("boft", "oft_blocks", normal(2, 4, 2, 3)),
        ("boft", "oft_blocks", normal(2, 4, 2, 2, 2)),
        ("dora", "dora_scale", normal(3, 1)),
        ("dora", "dora_scale", torch.tensor(1.0)),
    ):
        yield Row(f"{kind} with {role} of shape {tuple(tensor.shape)}", instead(**{**SOUND[kind], role: tensor}))


def _values() -> Iterator[Row]:
    for kind in WITHOUT_BASE:
        role, tensor = next(iter(SOUND[kind].items()))
        yield Row(f"nan in a {kind}", instead(**{**SOUND[kind], role: torch.full_like(tensor, NAN)}))
        yield Row(
            f"numbers too large in a {kind}",
            instead(**{name: torch.full_like(value, 3e38) for name, value in SOUND[kind].items()}),
            reads=kind == "full",
        )
        yield Row(f"integers in a {kind}", instead(**{**SOUND[kind], role: torch.ones_like(tensor, dtype=torch.int32)}))
    yield Row("nan in a norm", packed({**whole(), f"{NORM}.w_norm": torch.full((8,), NAN)}))
    yield Row("nan in a bias", changed(diff_b=torch.full((8,), NAN)))
    yield Row("infinity in an unprojected bias", changed(diff_b=torch.full((8,), float("inf"))))
    yield Row("alpha nan in a loha", instead(**SOUND["loha"], alpha=torch.tensor(NAN)))
    yield Row("alpha 0 in a loha", instead(**SOUND["loha"], alpha=torch.tensor(0.0)), fine=True)
    yield Row("alpha a vector in a lokr", instead(**SOUND["lokr"], alpha=torch.ones(3)))
    yield Row("alpha nan in a lokr that ignores it", instead(**SOUND["lokr of wholes"], alpha=torch.tensor(NAN)))
    yield Row("zeros only in a loha", instead(**{name: value * 0 for name, value in SOUND["loha"].items()}), fine=True)
    yield Row("zeros only in a full", instead(diff=torch.zeros(8, 8)), fine=True)


def _mixed() -> Iterator[Row]:
    up_down = {"lora_up": normal(8, 2), "lora_down": normal(2, 8)}
    for kind in ("loha", "lokr", "glora", "ia3", "oft", "full"):
        yield Row(f"lora and {kind} in one layer", instead(**up_down, **SOUND[kind]))
    yield Row("loha and lokr in one layer", instead(**SOUND["loha"], **SOUND["lokr"]))
    yield Row("full and lokr in one layer", instead(**SOUND["full"], **SOUND["lokr"]))
    yield Row("full and norm in one layer", instead(**SOUND["full"], w_norm=normal(8)))
    yield Row("half a lora and half a loha", instead(lora_up=normal(8, 2), hada_w1_a=normal(8, 2)))
    layers = {**lora(CONV), **{f"{QUERY}.{role}": value for role, value in SOUND["loha"].items()}}
    layers |= {f"{KEY}.diff": normal(8, 768), f"{NORM}.w_norm": normal(8)}
    yield Row("every layer of another kind", packed(layers), fine=True)


def _bombs() -> Iterator[Row]:
    """Small files that say they are large."""
    tall, wide = torch.ones(60_000, 1, dtype=torch.float16), torch.ones(1, 60_000, dtype=torch.float16)
    yield Row("a lokr of 50 exabytes", instead(lokr_w1_a=tall, lokr_w1_b=wide, lokr_w2_a=tall, lokr_w2_b=wide))
    tall, wide = torch.ones(300_000, 1, dtype=torch.float16), torch.ones(1, 300_000, dtype=torch.float16)
    yield Row("a loha of 360 gigabytes", instead(hada_w1_a=tall, hada_w1_b=wide, hada_w2_a=tall, hada_w2_b=wide))
