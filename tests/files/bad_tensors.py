"""Sound files whose tensors make no LoRA: partners, shapes, scales, dtypes, values."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from .bad_rows import CONV, DOTTED, KEY, QUERY, Row, changed, instead, normal, packed, raw, split, whole

INF, NAN = float("inf"), float("nan")


def rows() -> Iterator[Row]:
    yield from _partners()
    yield from _shapes()
    yield from _scales()
    yield from _dtypes()
    yield from _values()


def _partners() -> Iterator[Row]:
    yield Row("up without down", changed(lora_down=None))
    yield Row("down without up", changed(lora_up=None))
    yield Row("alpha alone", changed(lora_up=None, lora_down=None))
    yield Row("mid alone", instead(lora_mid=normal(2, 2, 3, 3)))
    yield Row("up and mid without down", changed(lora_down=None, lora_mid=normal(2, 2, 3, 3)))
    yield Row("alpha of an unknown layer", packed({**whole(), "lora_unet_conv_in.alpha": torch.tensor(1.0)}))
    yield Row(
        "alphas and nothing else", packed({name: value for name, value in whole().items() if name.endswith("alpha")})
    )
    yield Row(
        "a layer in two spellings",
        packed({**whole(), f"{DOTTED}.lora_B.weight": normal(8, 2), f"{DOTTED}.lora_A.weight": normal(2, 8)}),
    )
    yield Row(
        "a layer in two cases of prefix",
        packed(
            {
                **whole(),
                **{
                    f"diffusion_model.{DOTTED[5:]}.{role}.weight": normal(*shape)
                    for role, shape in (("lora_up", (8, 2)), ("lora_down", (2, 8)))
                },
            }
        ),
    )
    yield Row(
        "up in one spelling and down in another",
        packed(
            {
                **{name: value for name, value in whole().items() if name != f"{QUERY}.lora_down.weight"},
                f"{DOTTED}.lora_A.weight": normal(2, 8),
            }
        ),
        fine=True,
    )
    yield Row("up in two spellings", packed({**whole(), f"{DOTTED}.lora_B.weight": normal(8, 2)}))
    yield Row("alpha in two spellings", packed({**whole(), f"{DOTTED}.alpha": torch.tensor(1.0)}))


def _shapes() -> Iterator[Row]:
    yield Row("up and down swapped", changed(lora_up=normal(2, 8), lora_down=normal(8, 2)), reads=True)
    yield Row("up and down of different ranks", changed(lora_down=normal(3, 8)))
    yield Row("rank 0", changed(lora_up=torch.zeros(8, 0), lora_down=torch.zeros(0, 8)), fine=True)
    yield Row("no rows", changed(lora_up=torch.zeros(0, 2)))
    yield Row("no columns", changed(lora_down=torch.zeros(2, 0)))
    for dimensions, shape in {0: (), 1: (16,)}.items():
        yield Row(f"up of {dimensions} dimensions", changed(lora_up=torch.ones(shape)))
    for dimensions, shape in {0: (), 1: (16,), 6: (2, 8, 1, 1, 1, 1)}.items():
        yield Row(f"down of {dimensions} dimensions", changed(lora_down=torch.ones(shape)))
    yield Row(
        "up and down of 5 dimensions",
        changed(lora_up=torch.ones(8, 2, 1, 1, 1), lora_down=torch.ones(2, 8, 1, 1, 1)),
        reads=True,
    )
    yield Row("up with a kernel", instead(CONV, lora_up=normal(8, 2, 3, 3), lora_down=normal(2, 8, 3, 3)))
    yield Row(
        "mid of other rank",
        instead(CONV, lora_up=normal(8, 2, 1, 1), lora_down=normal(2, 8, 1, 1), lora_mid=normal(3, 3, 3, 3)),
    )
    yield Row(
        "mid that is no square",
        instead(CONV, lora_up=normal(8, 2, 1, 1), lora_down=normal(2, 8, 1, 1), lora_mid=normal(2, 3, 3, 3)),
    )
    yield Row(
        "mid of 1 dimension",
        instead(CONV, lora_up=normal(8, 2, 1, 1), lora_down=normal(2, 8, 1, 1), lora_mid=normal(4)),
    )
    yield Row(
        "mid and a down with a kernel",
        instead(CONV, lora_up=normal(8, 2, 1, 1), lora_down=normal(2, 8, 3, 3), lora_mid=normal(2, 2, 3, 3)),
        reads=True,
    )
    yield Row(
        "mid without size",
        instead(CONV, lora_up=normal(8, 2, 1, 1), lora_down=normal(2, 8, 1, 1), lora_mid=torch.zeros(2, 2, 0, 0)),
    )
    yield Row("a layer wider than the good one", changed(lora_down=normal(2, 9)), reads=True)
    yield Row("a layer taller than the good one", changed(lora_up=normal(9, 2)), reads=True)
    yield Row(
        "a layer made for another model", instead(KEY, lora_up=normal(8, 2), lora_down=normal(2, 2048)), reads=True
    )
    yield Row(
        "a linear layer that is a convolution",
        changed(lora_up=normal(8, 2, 1, 1), lora_down=normal(2, 8, 3, 3)),
        reads=True,
    )
    yield Row(
        "a layer of absurd size",
        changed(
            lora_up=torch.zeros(400_000, 1, dtype=torch.float16), lora_down=torch.zeros(1, 400_000, dtype=torch.float16)
        ),
        reads=True,
    )
    absurd = changed(lora_up=torch.zeros(2**40, 0), lora_down=torch.zeros(0, 2**40))
    yield Row("absurd dimensions without data", absurd, fine=True)


def _scales() -> Iterator[Row]:
    for what, value in {
        "nan": torch.tensor(NAN),
        "infinite": torch.tensor(INF),
        "minus infinity": torch.tensor(-INF),
        "a vector": torch.ones(2),
        "empty": torch.ones(0),
        "a matrix": torch.ones(2, 2),
    }.items():
        yield Row(f"alpha {what}", changed(alpha=value))
        yield Row(f"scale {what}", changed(scale=value))
    for what, value in {
        "0": torch.tensor(0.0),
        "negative": torch.tensor(-2.0),
        "one number in a vector": torch.ones(1),
        "one number in a matrix": torch.ones(1, 1),
        "an integer": torch.tensor(4),
        "of fp16": torch.tensor(2.0, dtype=torch.float16),
        "of fp64": torch.tensor(2.0, dtype=torch.float64),
        "tiny": torch.tensor(1e-30),
    }.items():
        yield Row(f"alpha {what}", changed(alpha=value), fine=True)
    yield Row("alpha missing", changed(alpha=None), fine=True)
    yield Row("scale beside alpha", changed(scale=torch.tensor(0.5)), fine=True)
    yield Row(
        "every alpha 0",
        packed({name: value * 0 if name.endswith("alpha") else value for name, value in whole().items()}),
        fine=True,
    )
    yield Row("alpha so large that nothing can hold it", changed(alpha=torch.tensor(3e38)), reads=True)


def _dtypes() -> Iterator[Row]:
    for dtype in ("int64", "int32", "int16", "int8", "uint8", "uint16", "bool", "complex64"):
        yield Row(f"up of {dtype}", changed(lora_up=torch.ones(8, 2, dtype=getattr(torch, dtype))))
    yield Row("down of int8", changed(lora_down=torch.ones(2, 8, dtype=torch.int8)))
    yield Row("alpha of bool", changed(alpha=torch.tensor(True)))
    yield Row("alpha of complex64", changed(alpha=torch.tensor(1j)))
    for dtype in ("float64", "float16", "bfloat16", "float8_e4m3fn", "float8_e5m2"):
        yield Row(f"up of {dtype}", changed(lora_up=normal(8, 2).to(getattr(torch, dtype))), fine=True)
    for dtype, shape in (("F4", (8, 16)), ("F6_E2M3", (8, 16))):
        header, data = split(packed(whole()))
        name, start = "lora_unet_x.lora_up.weight", len(data)
        size = 64 if dtype == "F4" else 96
        entry = {"dtype": dtype, "shape": shape, "data_offsets": [start, start + size]}
        yield Row(f"up of {dtype}", raw({**header, name: entry}, data + bytes(size)))


def _values() -> Iterator[Row]:
    for what, value in {"nan": NAN, "infinity": INF, "minus infinity": -INF}.items():
        spoilt = normal(2, 8)
        spoilt[1, 3] = value
        yield Row(f"one {what} in down", changed(lora_down=spoilt))
        yield Row(f"{what} everywhere in up", changed(lora_up=torch.full((8, 2), value)))
    yield Row(
        "nan in a convolution's mid",
        instead(CONV, lora_up=normal(8, 2, 1, 1), lora_down=normal(2, 8, 1, 1), lora_mid=torch.full((2, 2, 3, 3), NAN)),
    )
    yield Row("infinity in fp8", changed(lora_up=torch.full((8, 2), INF).to(torch.float8_e5m2)))
    yield Row("nan in fp8", changed(lora_up=torch.full((8, 2), NAN).to(torch.float8_e4m3fn)))
    yield Row("infinity in bf16", changed(lora_up=torch.full((8, 2), INF, dtype=torch.bfloat16)))
    yield Row("a number too large for fp32", changed(lora_up=torch.full((8, 2), 1e300, dtype=torch.float64)))
    yield Row(
        "factors whose product overflows",
        changed(lora_up=torch.full((8, 2), 3e38), lora_down=torch.full((2, 8), 3e38)),
        reads=True,
    )
    yield Row(
        "factors too large for fp16",
        changed(lora_up=torch.full((8, 2), 1e15), lora_down=torch.full((2, 8), 1e15)),
        reads=True,
    )
    yield Row(
        "factors at the end of fp16", changed(lora_up=torch.full((8, 2), 65504.0, dtype=torch.float16)), fine=True
    )
    yield Row(
        "denormal factors", changed(lora_up=torch.full((8, 2), 1e-40), lora_down=torch.full((2, 8), 1e-40)), fine=True
    )
    yield Row("zeros only in up", changed(lora_up=torch.zeros(8, 2)), fine=True)
    yield Row("zeros only", packed({name: value * 0 for name, value in whole().items()}), fine=True)
    yield Row("rank beyond the layer's size", changed(lora_up=normal(8, 40), lora_down=normal(40, 8)), fine=True)
    yield Row("rank deficient factors", changed(lora_up=torch.ones(8, 2), lora_down=torch.ones(2, 8)), fine=True)
