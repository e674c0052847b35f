"""Draws tags, prompts, panel arguments, REST bodies and file names: sound ones, almost sound ones, hostile ones.

None of them has a word in it that `sentences` looks for.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from lib_nplora.methods.table import methods
from lib_nplora.request.roles import role_keys
from lib_nplora.request.tag import FOREIGN, tag_keys
from lib_nplora.webui.fields import fields

T = TypeVar("T")

NAMES = (
    *("dog", "vangogh", "hat", "tucker", "bf16", "knight", "ink", "first", "second", "small content", "small style"),
    *("Van Gogh, v1.5 (röt)", "My Alias", "loha", "lokr", "full", "norm"),
)
"""LoRAs that each host reads, each another file: see hosts.contract.Loras."""

OTHERS = (
    "file_0007",
    "sdxl_thing",
    "broken",
    "nobody",
    "vangog",
    "none",
    "Addams",
    "dora",
    "ia3",
    "DOG",
    "dog.safetensors",
)

NUMBERS = ("0", "0.5", "1", "2", "hard", "10", "0.25", "-1", "1e3", "-0.8", " 0.7 ", "HARD", "+1", ".5", "5.")
ODD_NUMBERS = (
    *("nan", "inf", "-inf", "1e999", "9" * 30, "9" * 400, "9" * 5000, "1e-400", "1e38", "-1e38", "1e308", "0x10"),
    *("١٢", "1", "0,5", "1_000", "--1", "+", "", " ", "½", "1e", "∞", "50%", "%", "4294967296", "-0", "1e-30"),
)
VALUES = {
    "k": ("all", "1", "2", "90%", "0.5%", "16", "100%", " ALL "),
    "method": tuple(methods()),
    "balance": ("off", "layer", "down", "whole"),
    "scope": ("attention", "all"),
    "density": ("0.2", "20%", "1", "0.001", "100%"),
    "seed": ("0", "7", "4294967295"),
    "alpha": ("1.5", "0.5", "2"),
    "beta": ("0.5", "1.3", "1"),
    "mu": ("0", "0.5", "2", "hard", "0.25"),
}
"""Key -> sensible values; numbers for the others."""

BLOCKS = ("te", "te1", "in", "IN01", "mid")
ODD_BLOCKS = (
    "out",
    "other",
    "in4",
    "out11",
    "double7",
    "single30",
    "in99999",
    "mid0",
    "",
    "in-1",
    "@",
    "mdi",
    "te2",
    "in٣",
    "IN " * 9,
)

ODD = (
    *(
        "\u202e",
        "\u200b",
        "e\u0301",
        "👩\u200d🎨",
        "\x00",
        "\x1b[31m",
        "\u2028",
        "\ufb00",
        "İ",
        "ß",
        "٣",
        "\n",
        "\t",
        "\r",
    ),
    *(
        "<",
        ">",
        ":",
        "=",
        "@",
        ",",
        ";",
        "#",
        "//",
        "/*",
        "*/",
        "%",
        "%s",
        "{0}",
        "{",
        "}",
        "(",
        ")",
        "[",
        "]",
        "|",
        "\\",
    ),
    *(
        "$",
        "`",
        "'",
        '"',
        "&lt;",
        "<b>",
        "..",
        "/",
        " ",
        "\u00a0",
        "\ufeff",
        "\uffff",
        "AND",
        "BREAK",
        "__a__",
        "\u3000",
    ),
)
SURROGATES = ("\ud800", "\udcf6")
WORDS = ("a cat", "(a dog:1.2)", "[a|b]", "[a:b:0.5]", "oil, canvas", "# said", "// aside", "/* not this */", "\\(x\\)")
FILE_NAMES = (
    *("CON", "nul", "aux.txt", "com1", "a.", "a ", " a", ".hidden", "..", ".", "", " ", "...", "../x", "a/../b"),
    *("/etc/x", "C:\\x", "C:x", "\\\\srv\\x", "styles/x", "styles\\x", "out/x", "out/../x", "./x", "styles//x"),
    *("styles/", "nothing/x", "a\nb", "a:b", "a<b", "a=b", "a>b", "x.ckpt", "x.pt", "x.safetensors", "X.SAFETENSORS"),
    *(".safetensors", "x.safetensors.", "dog", "DOG", "My Alias", "none", "Addams", "~", "~/x", "$HOME", "*", "?"),
    *("a|b", 'a"b', "-o", "--help", "x.y.z", "v1.5", "r\u00f6t", "ro\u0308t", "İ", "straße", "STRASSE", "\ufb01x"),
    *("x" * 243, "x" * 244, "x" * 255, "ö" * 121, "ö" * 122, "x" * 4096, "a/" * 200 + "x", "\u202egpj", "x\x00y"),
    *("x\ty", "x\x7f", "\ufeffx", "\u200b", "a\u3000", "file_0007"),
)
WRONG_TYPES: tuple[Callable[[], Any], ...] = (
    *(lambda: None, lambda: True, lambda: False, lambda: 0, lambda: 1, lambda: -1, lambda: 0.5, lambda: 3.0),
    *(lambda: float("nan"), lambda: float("inf"), lambda: 10**30, lambda: 10**400, lambda: -(10**400), lambda: 1e308),
    *(list, dict, lambda: [1], lambda: {"a": 1}, lambda: [[[]]], lambda: ["dog"], lambda: [None]),
    *(str, lambda: "0.5", lambda: "hard", lambda: "x" * 1000, lambda: "true", lambda: " ", lambda: "1,mid@2"),
)

PAIR = ("content", "style")
MULTIPLIERS = ("te", "unet")
BODY = (*PAIR, "content_weight", "style_weight", *MULTIPLIERS, *VALUES)
SAVING = {
    "dtype": ("fp16", "bf16", "fp32", "fp8", "FP16"),
    "rank": (1, 2, 4, 0, -1, 4096, 10**6),
    "energy": ("99%", "50%", "0%", "101%", "9", "%"),
    "full": (True, False, "yes"),
    "spelling": ("kohya", "diffusers", "comfyui", "latin"),
}
INSPECTING = {"steps": (20, 1, 7, 10000, 10001, 0, -1)}


class Grammar:
    """One draw after the other, all from one source of chance.

    surrogates
        Whether texts may hold what is no Unicode, which JSON can carry, and which a real host fails on by itself.
    """

    def __init__(self, chance: random.Random, surrogates: bool = True) -> None:
        self._chance = chance
        self._odd = (*ODD, *SURROGATES) if surrogates else ODD

    def one(self, several: Sequence[T]) -> T:
        return self._chance.choice(several)

    def often(self, share: float) -> bool:
        """Whether something happens that does so in this share of all cases."""
        return self._chance.random() < share

    def whole(self, low: int, high: int) -> int:
        return self._chance.randint(low, high)

    # texts

    def text(self, most: int = 12) -> str:
        """Letters with odd signs among them."""
        return "".join(
            self.one(self._odd) if self.often(0.4) else self.one("abcxyz  0189._-") for _ in range(self.whole(0, most))
        )

    def broken(self, text: str) -> str:
        """A text with one to three slips of the pen."""
        for _ in range(self.whole(1, 3)):
            at, to = sorted((self.whole(0, len(text)), self.whole(0, len(text))))
            text = self.one(
                (
                    text[:at] + text[at + 1 :],
                    text[:at] + self.one(self._odd) + text[at:],
                    text[:at] + self.one(self._odd) + text[at + 1 :],
                    text[:to] + text[at:to] + text[to:],
                    text[:at] + text[at:to].swapcase() + text[to:],
                    text[:at] + text[at : at + 2][::-1] + text[at + 2 :],
                    text[:at] + (text[at : at + 1] * (1000 if self.often(0.05) else 3)) + text[at:],
                    text[:at] + text + text[at:],
                    text.replace(self.one(":=<>, "), self.one(("", " ", "::", "|", "=", ":")), 1),
                )
            )
        return text

    # values

    def number(self) -> str:
        return self.one(ODD_NUMBERS if self.often(0.25) else NUMBERS)

    def sound(self, key: str) -> str:
        """A value that the key takes."""
        return self.one(VALUES.get(key, ("0", "0.5", "1", "-1", "0.8")))

    def value(self, key: str) -> str:
        """Any value that somebody may give the key."""
        if self.often(0.75):
            return self.sound(key)
        return self.one((self.number, self.text, lambda: self.by_block(self.number)))()

    def by_block(self, number: Callable[[], str]) -> str:
        """A value with exceptions."""
        blocks = [self.one(ODD_BLOCKS if self.often(0.1) else BLOCKS) for _ in range(self.whole(1, 3))]
        pieces = [number() for _ in range(self.one((0, 1, 1, 1, 2)))] + [f"{block}@{number()}" for block in blocks]
        return self.one((",",) * 8 + (", ", ",,", ";", " ")).join(pieces)

    def name(self) -> str:
        if self.often(0.85):
            return self.one(NAMES)
        return self.one(OTHERS) if self.often(0.6) else self.text()

    def key(self) -> str:
        if self.often(0.8):
            return self.one(tag_keys())
        return self.one((*role_keys(), *FOREIGN, "hypernet", "tau", "weight", "Mu", " k ", "", self.text(6)))

    # tags

    def sound_tag(self) -> str:
        """A tag that every host must honour."""
        content, style = self._chance.sample(NAMES, 2)
        method = self.one([name for name in methods() if name not in ("rar", "blora", "klora*")])
        own = [one.name for one in methods()[method].parameters if not one.is_setting]
        keys = [key for key in ("c", "s", "te", "unet", *own) if self.often(0.3)]
        pieces = [content, style, *(f"{key}={self.sound(key)}" for key in keys), f"method={method}"]
        return f"<nplora:{':'.join(pieces)}>"

    def tag(self) -> str:
        """An `<nplora:...>`, good or bad."""
        if self.often(0.2):
            return self.sound_tag()
        pieces = [self.name(), self.name()][: self.one((0, 1, 2, 2, 2, 2, 2, 2))]
        pieces += [self.value("mu") for _ in range(self.one((0, 1, 1, 2)))] if self.often(0.5) else []
        pieces += [f"{key}={self.value(key)}" for key in (self.key() for _ in range(self.whole(0, 4)))]
        if self.often(0.1):
            pieces.insert(
                self.whole(0, len(pieces)), self.one(("", " ", "=", "==", "a=b=c", self.text(), "<", "[0.5]"))
            )
        if self.often(0.05):
            self._chance.shuffle(pieces)
        tag = f"<{self.one(('nplora',) * 9 + ('NPLORA', 'nplra', 'np-lora', 'np lora'))}:{':'.join(pieces)}>"
        return self.broken(tag) if self.often(0.25) else tag

    def roles(self) -> str:
        """A pair of `<lora:...:role=...>`, or less, or more."""
        tags = []
        for role in (*PAIR, *((self.one(PAIR),) if self.often(0.2) else ())):
            pieces = [self.name(), *([self.number()] if self.often(0.6) else []), f"role={role}"]
            pieces += [f"{key}={self.value(key)}" for key in (self.one(role_keys()) for _ in range(self.whole(0, 2)))]
            if self.often(0.2):
                pieces.append(f"{self.one(tuple(FOREIGN))}={self.one(('1,0,1', '3', '0-5', 'MIDD'))}")
            tag = f"<{self.one(('lora', 'lora', 'lora', 'lyco', 'LORA'))}:{':'.join(pieces)}>"
            tags.append(self.broken(tag) if self.often(0.1) else tag)
        return self.one((" ", ", ", "")).join(tags[self.whole(0, 1) if self.often(0.1) else 0 :])

    def prompt(self) -> str:
        """A prompt with one fusion or more, and what stands beside them."""
        pieces = [self.roles() if self.often(0.25) else self.tag()]
        pieces += [self.one((self.tag, self.roles, self.tag))()] if self.often(0.15) else []
        pieces += [self.one(WORDS) for _ in range(self.whole(0, 2))]
        pieces += [
            self.one(("<lora:hat:0.5>", "<lora:dog:1>", "<hypernet:x:1>", "<lora:hat:1:0.5:lbw=MIDD>"))
        ] * self.often(0.2)
        pieces += [f"[{self.tag()}:{self.tag()}:0.5]"] * self.often(0.03)
        self._chance.shuffle(pieces)
        return self.one((" ", ", ", "")).join(pieces)

    # the panel

    def panel(self) -> list[Any]:
        """The script's arguments."""
        values: dict[str, Any] = {"enabled": True, **dict(zip(PAIR, self._chance.sample(NAMES, 2)))}
        for name in fields():
            if name not in values and self.often(0.25):
                values[name] = self.panel_value(name)
        for name in list(fields()) * self.often(0.4):
            if self.often(0.08):
                values[name] = self.one(WRONG_TYPES)()
        if self.often(0.4):
            named: dict[Any, Any] = {
                name: value for name, value in values.items() if name != "enabled" or self.often(0.2)
            }
            if self.often(0.15):
                named[self.one(("contnet", "Mu", "", "args", self.text()))] = self.one(WRONG_TYPES)()
            args: list[Any] = [named]
            return [*args, *(self.one(WRONG_TYPES)() for _ in range(self.whole(1, 4)))] if self.often(0.2) else args
        listed = [values.get(name, default) for name, default in fields().items()]
        listed = listed[: self.whole(0, len(listed))] if self.often(0.3) else listed
        if self.often(0.1):
            listed.insert(self.whole(0, len(listed)), self.one(WRONG_TYPES)())
        return listed

    def panel_value(self, name: str) -> Any:
        """A value of the panel, mostly of its type."""
        default = fields()[name]
        if isinstance(default, bool):
            return self.one((True, False, True, False, 1, "true"))
        if name.endswith("_by_block"):
            return self.by_block(self.number if self.often(0.2) else lambda: self.sound("")).partition(",")[2]
        text = self.value(name) if self.often(0.3) else self.sound(name)
        return self.one((0, 0.5, 1, 2, text)) if isinstance(default, float) else text

    # the API

    def body(self, route: str) -> bytes:
        """What is posted to a route."""
        if self.often(0.06):
            return self.one(
                (
                    b"",
                    b"{",
                    b"[]",
                    b"null",
                    b'"dog"',
                    b"\xff",
                    b"1" * 5000,
                    b"[" * 50_000,
                    b'{"a":' * 5000,
                    b"{}",
                    b"\x00",
                )
            )
        content, style = self._chance.sample(NAMES, 2)
        body: dict[str, Any] = {"content": content, "style": style}
        for key in BODY:
            if self.often(0.08):
                body[key] = self.name() if key in PAIR else self.body_value(key)
        for key, values in (SAVING if route == "fuse" else INSPECTING).items():
            if self.often(0.08):
                body[key] = self.one(values)
        if route == "fuse":
            body["output"] = self.file_name() if self.often(0.1) else "new"
        elif self.often(0.03):
            body["plot"] = True
        if self.often(0.3):
            for _ in range(self.whole(1, 2)):
                key = self.one((*body, *BODY, *SAVING, "steps", "output", self.text(5)))
                body[key] = self.one((*WRONG_TYPES, self.text))()
        if self.often(0.1):
            body.pop(self.one(tuple(body)))
        wrapped: Any = self.one(([body], {"body": body}, {"body": [body]})) if self.often(0.02) else body
        return json.dumps(wrapped, ensure_ascii=self.often(0.9)).encode("utf-8", "surrogatepass")

    def request(self, **given: str) -> bytes:
        """A sound body, but for these."""
        return json.dumps({"content": "dog", "style": "vangogh", **given}).encode()

    def body_value(self, key: str) -> Any:
        text = self.value(key)
        try:
            return float(text) if self.often(0.5) else text
        except ValueError:
            return text

    def file_name(self) -> str:
        """A name that somebody may give a LoRA, without its ending or with one."""
        if self.often(0.3):
            return self.one(FILE_NAMES)
        name = self.broken(self.one((*NAMES, *FILE_NAMES))) if self.often(0.4) else self.text(20)
        return name + self.one(("", "", "", ".safetensors", ".", " ", ".pt", "x" * self.whole(0, 255)))
