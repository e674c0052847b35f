"""Files cut short, and .safetensors files whose header is wrong."""

from __future__ import annotations

import json
from collections.abc import Iterator

from .bad_rows import QUERY, Row, packed, raw, split, whole

GOOD = packed(whole())
HEADER = 8 + int.from_bytes(GOOD[:8], "little")


def rows() -> Iterator[Row]:
    yield from _truncated()
    yield from _lengths()
    yield from _headers()
    yield from _entries()


def _truncated() -> Iterator[Row]:
    ends = {
        "to nothing": 0,
        "after 1 byte": 1,
        "in the header's length": 4,
        "before the header's length ends": 7,
        "before the header": 8,
        "after the header's first byte": 9,
        "in the header": HEADER // 2,
        "at the header's last byte": HEADER - 1,
        "before the data": HEADER,
        "after the data's first byte": HEADER + 1,
        "after a quarter": HEADER + (len(GOOD) - HEADER) // 4,
        "in the middle": HEADER + (len(GOOD) - HEADER) // 2,
        "near the end": len(GOOD) - 100,
        "by one byte": len(GOOD) - 1,
    }
    for where, end in ends.items():
        yield Row(f"truncated {where}", GOOD[:end])
    yield Row("one byte too many", GOOD + b"\0")
    yield Row("twice the same file", GOOD + GOOD)
    yield Row("first byte missing", GOOD[1:])
    yield Row("nothing but zeros", bytes(len(GOOD)))
    yield Row("nothing but ones", b"\xff" * 1000)
    yield Row("data in the middle zeroed with the header", bytes(HEADER) + GOOD[HEADER:])


def _lengths() -> Iterator[Row]:
    text, data = GOOD[8:HEADER], GOOD[HEADER:]
    lengths = {
        "0": 0,
        "1": 1,
        "one too small": len(text) - 1,
        "one too large": len(text) + 1,
        "larger than the file": 10 * len(GOOD),
        "over 100 MB": 100_000_001,
        "of 2 to the 32": 2**32,
        "of 2 to the 63": 2**63,
        "of 2 to the 64 less 1": 2**64 - 1,
    }
    for what, length in lengths.items():
        yield Row(f"header length {what}", raw(text, data, length))
    yield Row("header length in big endian", len(text).to_bytes(8, "big") + text + data)


def _headers() -> Iterator[Row]:
    headers: dict[str, bytes] = {
        "empty": b"",
        "no json": b"not json at all!",
        "an empty object": b"{}",
        "an array": b"[]",
        "a string": b'"hello"',
        "a number": b"42",
        "null": b"null",
        "true": b"true",
        "NaN": b"NaN",
        "with a comma too many": b'{"a": 1,}',
        "cut in a string": b'{"a',
        "invalid utf-8": b'{"\xff\xfe": 1}',
        "utf-16": '{"a": 1}'.encode("utf-16"),
        "nested 20000 deep": b'{"a":' * 20000 + b"1" + b"}" * 20000,
        "20000 arrays deep": b'{"a":' + b"[" * 20000 + b"]" * 20000 + b"}",
        "spaces only": b" " * 1000,
        "nothing but metadata": b'{"__metadata__": {"a": "b"}}',
        "metadata a list": b'{"__metadata__": ["a"]}',
        "metadata a number": b'{"__metadata__": 5}',
        "metadata with numbers": b'{"__metadata__": {"a": 5}}',
        "metadata with null": b'{"__metadata__": {"a": null}}',
        "metadata with an object": b'{"__metadata__": {"a": {"b": "c"}}}',
    }
    for what, text in headers.items():
        yield Row(f"header {what}", raw(text))


def _entries() -> Iterator[Row]:
    header, data = split(GOOD)
    up = f"{QUERY}.lora_up.weight"
    entry = dict(header[up])  # type: ignore[call-overload]
    start, end = entry["data_offsets"]
    entries: dict[str, object] = {
        "no object": 5,
        "null": None,
        "a list": [1, 2],
        "an empty object": {},
        "without dtype": {"shape": entry["shape"], "data_offsets": [start, end]},
        "without shape": {"dtype": "F32", "data_offsets": [start, end]},
        "without offsets": {"dtype": "F32", "shape": entry["shape"]},
        "of an unknown dtype": {**entry, "dtype": "F99"},
        "of dtype 32": {**entry, "dtype": 32},
        "of dtype null": {**entry, "dtype": None},
        "of a lower-case dtype": {**entry, "dtype": "f32"},
        "of a dtype of other size": {**entry, "dtype": "F64"},
        "of negative shape": {**entry, "shape": [-8, -2]},
        "of fractional shape": {**entry, "shape": [8.5, 2]},
        "of shape in words": {**entry, "shape": ["eight", 2]},
        "of shape no list": {**entry, "shape": 16},
        "of huge shape": {**entry, "shape": [2**40, 2**40]},
        "of a shape that overflows": {**entry, "shape": [2**62, 4]},
        "of shape beyond 64 bits": {**entry, "shape": [2**70, 2]},
        "of other shape than its data": {**entry, "shape": [8, 3]},
        "of 2000 dimensions": {**entry, "shape": [8, 2] + [1] * 2000},
        "of offsets reversed": {**entry, "data_offsets": [end, start]},
        "of offsets beyond the file": {**entry, "data_offsets": [start + 10**9, end + 10**9]},
        "of negative offsets": {**entry, "data_offsets": [-64, 0]},
        "of one offset": {**entry, "data_offsets": [start]},
        "of three offsets": {**entry, "data_offsets": [start, end, end]},
        "of offsets shifted by one": {**entry, "data_offsets": [start + 1, end + 1]},
        "of another's data": {**entry, "data_offsets": [0, end - start]},
        "of no data": {**entry, "data_offsets": [start, start]},
    }
    for what, value in entries.items():
        yield Row(f"an entry {what}", raw({**header, up: value}, data))
    shifted = {
        name: {**value, "data_offsets": [offset + 64 for offset in value["data_offsets"]]}
        for name, value in header.items()
    }
    yield Row("data that starts late", raw(shifted, bytes(64) + data))
    yield Row("data of a tensor that no name is for", raw({name: header[name] for name in header if name != up}, data))
    text = json.dumps(header)
    yield Row(
        "a name twice in the header", raw((text[:-1] + ", " + json.dumps({up: entry})[1:]).encode(), data), either=True
    )
