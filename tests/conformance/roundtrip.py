"""Part three: streams of tokens that are pieces of characters.

Each request makes the model say tokens from a random set of several-byte characters, of pieces of them and sometimes of
special tokens, or go on with a text full of such characters. The streamed text must be what vLLM's own incremental
detokenizer makes of the streamed ids. At temperature 0 some are asked again: the same text and ids must come streamed,
whole, and from the server itself.
"""

import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import answers
import sampled
import vocabulary
import wire
from answers import Answer
from case import CHAT, COMPLETIONS, Case
from cases.prompts import MODEL
from reference import Reference
from vocabulary import Vocabulary

SAMPLED = 200
GREEDY = 40
AT_ONCE = 4

_TEXTS = [
    "🎉🎊🥳", "👩‍👩‍👧‍👦 👨‍💻 ", "🏳️‍🌈🏴‍☠️", "Привет, мир! ", "日本語と中国語。", "مرحبا بالعالم ", "नमस्ते दुनिया ", "한국어 문장입니다. ",
    "naïve café, crème brûlée; ", "e\u0301a\u0300o\u0308 ", "∀x∈ℝ: x²≥0 ⇒ √x² = |x| ", "𝔘𝔫𝔦𝔠𝔬𝔡𝔢 𝕏 ", "├──┤ ░▒▓█ ",
    "ไทยและลาว ",
]  # fmt: skip


def requests(words: Vocabulary, seed: int) -> list[Case]:
    """The same requests for the same seed."""
    return [_request(words, random.Random(f"{seed}-{number}"), number) for number in range(SAMPLED)]


def _request(words: Vocabulary, draw: random.Random, number: int) -> Case:
    body: dict = {"model": MODEL, "max_tokens": draw.randint(6, 16), "temperature": 1.0, "stream": True}
    body |= {"return_token_ids": True, "skip_special_tokens": draw.random() < 0.5}
    kind = ("allowed", "biased", "free")[number % 3]
    path = draw.choice((COMPLETIONS, COMPLETIONS, CHAT))
    text = "".join(draw.choices(_TEXTS, k=2)) * 3
    if path == CHAT:
        body["messages"] = [{"role": "user", "content": f"Go on: {text}"}]
    elif kind == "free" or draw.random() < 0.5:
        body["prompt"] = text
    else:
        # Ends in the middle of a character, more often than not.
        body["prompt"] = [504, *draw.choices(words.multibyte, k=3), *draw.choices(words.partial, k=draw.randint(1, 3))]
    if kind == "allowed":
        body["allowed_token_ids"] = sorted(set(_some(words, draw)))
    elif kind == "biased":
        body["logit_bias"] = {str(id): draw.choice((40, 100)) for id in _some(words, draw)}
    if draw.random() < 0.3:
        body["ignore_eos"] = True
    if draw.random() < 0.15:
        body["stop"] = draw.sample(list(dict.fromkeys(text.replace(" ", ""))), 2)
        body["include_stop_str_in_output"] = draw.random() < 0.5
    if not body["skip_special_tokens"] and draw.random() < 0.3:
        body["spaces_between_special_tokens"] = False
    return Case(f"{number} ({kind})", path, body)


def _some(words: Vocabulary, draw: random.Random) -> list[int]:
    ids = draw.sample(words.partial, draw.randint(8, 40)) + draw.sample(words.multibyte, draw.randint(2, 20))
    if draw.random() < 0.4:
        ids += draw.sample(words.ascii, 4)
    if draw.random() < 0.4:
        ids += draw.sample(words.special, 4)
    return ids


def check(case: Case, proxied: str, reference: Reference) -> list[str]:
    """What is wrong with one stream."""
    try:
        answer = _only(case, proxied)
    except wire.NoReply as error:
        return [str(error)]
    expected = sampled.text(reference, case.body, answer)
    if answer.text == expected:
        return []
    return [f"text {answer.text!r}, vLLM's of the same ids {expected!r}; ids {answer.token_ids}, asked {case.body}"]


def check_greedy(case: Case, direct: str, proxied: str) -> list[str]:
    """What differs at temperature 0 between a stream, a whole reply, and the server's."""
    try:
        return list(_greedy(case, direct, proxied))
    except wire.NoReply as error:
        return [str(error)]


def _greedy(case: Case, direct: str, proxied: str) -> Iterator[str]:
    whole = {**case.body, "temperature": 0.0, "stream": False}
    servers = _only(Case(case.name, case.path, whole), direct)
    for name, body in (("streamed", {**whole, "stream": True}), ("whole", whole)):
        own = _only(Case(case.name, case.path, body), proxied)
        for part in ("token_ids", "text", "finish_reason", "stop_reason"):
            if getattr(own, part) != getattr(servers, part):
                yield f"{part} {name} {getattr(own, part)!r}, the server's {getattr(servers, part)!r}, asked {body}"


def _only(case: Case, base: str) -> Answer:
    reply = wire.send(base, case)
    if reply.status != 200:
        raise wire.NoReply(f"{reply.status} {reply.body[:300]!r} to {case.body}")
    return answers.read(case.path, case.body, reply).choices[0]


def run(direct: str, proxied: str, model: str, seed: int, reference: Reference) -> Iterator[tuple[str, list[str]]]:
    """Each check's name and what is wrong."""
    asked = requests(vocabulary.read(model), seed)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        found = pool.map(lambda case: check(case, proxied, reference), asked)
        for case, wrong in zip(asked, found, strict=True):
            yield f"{case.endpoint} {case.name}", wrong
    for case in asked[:GREEDY]:
        yield f"{case.endpoint} {case.name}, greedy", check_greedy(case, direct, proxied)
