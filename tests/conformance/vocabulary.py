"""The model's tokens by the bytes that they stand for."""

import json
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Vocabulary:
    """Ids by kind."""

    partial: list[int]
    """Bytes that are not whole characters: a character needs several such tokens."""
    multibyte: list[int]
    """Whole characters, at least one of them beyond ASCII."""
    ascii: list[int]
    special: list[int]


def read(folder: str) -> Vocabulary:
    """Reads a byte-level tokenizer's `tokenizer.json`."""
    tokenizer = json.loads((Path(folder) / "tokenizer.json").read_text(encoding="utf-8"))
    special = [token["id"] for token in tokenizer["added_tokens"]]
    byte_of = _bytes_of_characters()
    kinds: dict[str, list[int]] = {"partial": [], "multibyte": [], "ascii": []}
    for token, number in sorted(tokenizer["model"]["vocab"].items(), key=lambda item: item[1]):
        if number not in special:
            kinds[_kind(bytes(byte_of[character] for character in token))].append(number)
    return Vocabulary(**kinds, special=special)


def _kind(text: bytes) -> str:
    try:
        return "ascii" if text.decode("utf-8").isascii() else "multibyte"
    except UnicodeDecodeError:
        return "partial"


def _bytes_of_characters() -> dict[str, int]:
    """GPT-2's way to write a byte as a visible character: itself where it can be seen, else from U+0100 on."""
    visible = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    table = {chr(byte): byte for byte in visible}
    hidden = [byte for byte in range(256) if byte not in visible]
    return table | {chr(256 + number): byte for number, byte in enumerate(hidden)}
