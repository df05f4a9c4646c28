"""Random token sequences that are hard to turn into text.

Characters of many bytes, cut anywhere; bytes that are no character; special and other added tokens; ids drawn blindly.
"""

import random
import re

CHARACTERS = list("aetxz .,!?'\n") + ["  ", "é", "ß", "İ", "中", "한", "ा", "\u0301", "\u200d", "\ufffd", "🎉", "👩‍👩‍👧", "🇫🇷"]
# A byte of its own: `<0x0A>` where bytes are a fallback, one character where every piece is made of bytes.
BYTE = re.compile(r"<0x[0-9A-F]{2}>|[\x80-\u0143]")


class RandomIds:
    """Draws ids of one tokenizer."""

    def __init__(self, tokenizer, rng: random.Random):
        self.tokenizer, self.rng = tokenizer, rng
        vocabulary = tokenizer.get_vocab()
        self.all = sorted(vocabulary.values())
        self.added = sorted(tokenizer.added_tokens_decoder)
        singles = sorted(id for piece, id in vocabulary.items() if BYTE.fullmatch(piece))
        self.bytes = singles if len(singles) > 100 else self.all

    def sequence(self, shortest: int, longest: int) -> list[int]:
        """Ids in runs of one kind, the kinds in proportions of the sequence's own."""
        rng = self.rng
        kinds = [self.text, self.some_bytes, self.some_added, self.any_ids]
        weights = [rng.choice((0, 1, 4)) for _ in kinds]
        if not any(weights):
            weights[0] = 1
        wanted, ids = rng.randint(shortest, longest), []
        while len(ids) < wanted:
            ids += rng.choices(kinds, weights)[0]()
        return ids[:wanted]

    def others(self, token: int, count: int) -> list[int]:
        """Different ids that are not `token`, as alternatives to it."""
        others: list[int] = []
        while len(others) < count:
            drawn = self.rng.choice(self.rng.choice((self.all, self.bytes)))
            if drawn != token and drawn not in others:
                others.append(drawn)
        return others

    def text(self) -> list[int]:
        """Some text, which may end inside a character."""
        text = "".join(self.rng.choices(CHARACTERS, k=self.rng.randint(1, 6)))
        ids = self.tokenizer.encode(text, add_special_tokens=False)
        return ids[: -self.rng.randint(1, 3)] if self.rng.random() < 0.3 else ids

    def some_bytes(self) -> list[int]:
        return self.rng.choices(self.bytes, k=self.rng.randint(1, 4))

    def some_added(self) -> list[int]:
        return self.rng.choices(self.added, k=self.rng.randint(1, 3))

    def any_ids(self) -> list[int]:
        return self.rng.choices(self.all, k=self.rng.randint(1, 3))
