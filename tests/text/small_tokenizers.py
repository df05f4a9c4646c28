"""Small tokenizers of every kind that decodes in a way of its own, as folders that transformers can load.

Each is a `tokenizer.json` with the `tokenizer_config.json` beside it that a model folder would have.
"""

import json
from collections.abc import Iterable
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, normalizers, pre_tokenizers
from tokenizers.models import BPE, Unigram, WordLevel, WordPiece

LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.,!?'-"
# Pieces beside single letters: leading spaces, several of them, whole words, characters of many bytes.
PIECES = ["▁", "▁▁", "▁▁▁▁", "▁a", "▁the", "th", "he", "in", "▁▁x", "é", "中", "▁中", "🎉", "\n", "▁\n", "\ufffd"]

# What a model adds to its vocabulary, special or not, and with every way of treating what stands beside it.
ADDED = [
    AddedToken("<|end|>", special=True, normalized=False),
    AddedToken("<|pad|>", special=True, normalized=True),
    AddedToken("<think>", special=False, normalized=False),
    AddedToken("<tool call>", special=False, normalized=True),
    AddedToken("<wide>", special=False, normalized=False, lstrip=True, rstrip=True),
    AddedToken("▁mark", special=False, normalized=True),
    AddedToken("né", special=False, normalized=False),
]


# Configurations that make tokens special, or add some, beside what `tokenizer.json` says.
NAMED = {"eos_token": "<think>", "extra_special_tokens": ["th", "<new>"], "image_token": "<image>"}
LISTED = {
    "added_tokens_decoder": {
        "262": {"content": "<|end|>", "special": False, "normalized": False},
        "264": {"content": "<think>", "special": True, "normalized": False},
        "270": {"content": "<late>", "special": False, "normalized": False},
    },
    "eos_token": {"__type": "AddedToken", "content": "<late>", "lstrip": False, "normalized": False},
    "pad_token": "<tool call>",
    "additional_special_tokens": ["<more>"],
}
MAPPED = {"eos_token": {"content": "<think>", "lstrip": False, "normalized": False}, "pad_token": "<p>"}


def make_all(folder: Path) -> dict[str, Path]:
    """Writes every tokenizer under `folder`; their folders by name."""
    llama = {"config": {"tokenizer_class": "LlamaTokenizer"}}
    made = {
        "byte-level-added": (byte_level(), {}),
        "byte-fallback": (byte_fallback(), {}),
        "byte-fallback-metaspace": (with_metaspace(byte_fallback()), {}),
        "byte-fallback-llama": (byte_fallback(), llama | {"model_type": "llama"}),
        "byte-fallback-phi": (byte_fallback(), llama | {"model_type": "phi3"}),
        "unigram": (unigram(), {}),
        "word-piece": (word_piece(), {}),
        "words": (words(), {}),
        "named-special": (byte_level(), {"config": NAMED}),
        "listed-special": (byte_level(), {"config": LISTED}),
        "mapped-special": (byte_level(), {"special_tokens_map": MAPPED}),
    }
    return {name: _write(folder / name, tokenizer, **how) for name, (tokenizer, how) in made.items()}


def byte_level() -> Tokenizer:
    """GPT-2 style: a piece for each byte, and some merges."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [("t", "h"), ("th", "e"), ("Ġ", "a"), ("Ã", "©"), ("ð", "Ł"), ("ðŁ", "İ")]
    vocabulary = _numbered(alphabet + ["".join(pair) for pair in merges])
    tokenizer = Tokenizer(BPE(vocabulary, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_tokens(ADDED)
    return tokenizer


def byte_fallback() -> Tokenizer:
    """Llama-2 style: what has no piece is spelt in bytes, and a leading space is taken off the text."""
    special = ["<unk>", "<s>", "</s>"]
    vocabulary = _numbered(special + [f"<0x{byte:02X}>" for byte in range(256)] + PIECES + list(LETTERS))
    tokenizer = Tokenizer(BPE(vocabulary, [], unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.add_special_tokens(special)
    tokenizer.add_tokens(ADDED)
    return tokenizer


def with_metaspace(tokenizer: Tokenizer) -> Tokenizer:
    """The newer form of the same: the pre-tokenizer marks the spaces, so vLLM gives them back to single tokens."""
    tokenizer.normalizer = normalizers.NFC()
    split = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(), split])
    return tokenizer


def unigram() -> Tokenizer:
    """XLM-R style: no bytes, and a decoder that knows what it is the start of."""
    pieces = ["<unk>", *PIECES, *LETTERS]
    tokenizer = Tokenizer(Unigram([(piece, -float(rank)) for rank, piece in enumerate(pieces)], unk_id=0))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.add_tokens(ADDED)
    return tokenizer


def word_piece() -> Tokenizer:
    """BERT style: the decoder takes spaces away before punctuation, so a token can change the text before it."""
    pieces = ["[UNK]", *LETTERS, *(f"##{letter}" for letter in LETTERS), "the", "##ing", "do", "n't", "'s", "é", "##中"]
    tokenizer = Tokenizer(WordPiece(_numbered(pieces), unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece(cleanup=True)
    tokenizer.add_tokens(ADDED)
    return tokenizer


def words() -> Tokenizer:
    """No decoder at all: a space between any two tokens."""
    tokenizer = Tokenizer(WordLevel(_numbered(["[UNK]", "the", "é", "中", "🎉", *LETTERS]), unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.add_tokens(ADDED)
    return tokenizer


def _numbered(pieces: Iterable[str]) -> dict[str, int]:
    return {piece: number for number, piece in enumerate(dict.fromkeys(pieces))}


def _write(
    folder: Path,
    tokenizer: Tokenizer,
    config: dict | None = None,
    special_tokens_map: dict | None = None,
    model_type: str | None = None,
) -> Path:
    folder.mkdir(parents=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False} | (config or {})
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    if special_tokens_map:
        (folder / "special_tokens_map.json").write_text(json.dumps(special_tokens_map))
    if model_type:
        (folder / "config.json").write_text(json.dumps({"model_type": model_type}))
    return folder
