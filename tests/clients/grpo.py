"""One step of GRPO on rollouts from a server, as a check that a trainer can trust them.

usage: grpo.py --base-url URL --model-dir FOLDER [--dtype float32]

Samples groups of answers to arithmetic questions at temperature 1 through chat, completions and generate. Scores every
sampled token again with transformers at the same weights: the server's log-probabilities must be those of the policy
that is trained, or the importance ratios, which should all be 1, are wrong. Then takes one step of the clipped loss on
a copy of the weights here; the server's stay as they are.

Prints a table and a line of JSON. Exits with 1 when ids and log-probabilities differ in number, or when a
log-probability differs by more than the tolerance. Run with the target environment's own Python.
"""

import argparse
import json
import re
import statistics
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby
from pathlib import Path

import torch
from rollouts import Rollout, Sampler
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils.logging import disable_progress_bar

QUESTIONS = {
    "What is 7 + 5? Answer with a number only.": 12,
    "What is 9 - 4? Answer with a number only.": 5,
    "What is 3 times 6? Answer with a number only.": 18,
}
COMPLETION = ("Question: What is 8 + 8?\nAnswer:", 16)

CLIP = 0.2
LEARNING_RATE = 1e-6


def main() -> int:
    options = _parse()
    disable_progress_bar()
    # Threads that wait for each other while the server works too take ten times as long as one alone.
    torch.set_num_threads(1)
    sampler = Sampler(options.base_url)
    started = time.monotonic()
    # The model is read while the server works.
    with ThreadPoolExecutor() as pool:
        sampled = pool.submit(sample, sampler)
        tokenizer = AutoTokenizer.from_pretrained(options.model_dir)
        dtype = getattr(torch, options.dtype)
        policy = AutoModelForCausalLM.from_pretrained(options.model_dir, dtype=dtype)
        rollouts, answers = sampled.result()
    sampling_s = time.monotonic() - started

    faults = [fault for rollout in rollouts if (fault := malformed(rollout))]
    if faults:
        print("\n".join(faults))
        return 1
    rewards = [reward(tokenizer.decode(r.token_ids), answers[r.group], len(r.token_ids)) for r in rollouts]
    groups = step(policy, rollouts, rewards)
    worst = max(group["largest_difference"] for group in groups)
    tokens = sum(group["tokens"] for group in groups)
    summary = {
        "rollouts": len(rollouts),
        "tokens": tokens,
        "largest_logprob_difference": worst,
        "mean_ratio": sum(group["ratio"] * group["tokens"] for group in groups) / tokens,
        "mean_reward": statistics.mean(rewards),
        "loss": sum(group["loss"] for group in groups),
        "gradient_norm": gradient_norm(policy),
        "sampling_s": round(sampling_s, 1),
        "training_s": round(time.monotonic() - started - sampling_s, 1),
    }
    optimizer = torch.optim.SGD(policy.parameters(), lr=LEARNING_RATE)
    optimizer.step()
    print(table(groups))
    print(json.dumps(summary))
    # A difference that is not a number is no small one.
    if not worst <= options.tolerance:
        print(f"a log-probability differs by {worst:.2e}, more than {options.tolerance}", file=sys.stderr)
        return 1
    return 0


def sample(sampler: Sampler) -> tuple[list[Rollout], dict[str, int]]:
    """Every group's rollouts, and each group's right answer."""
    rollouts, answers = [], {}
    with ThreadPoolExecutor() as pool:
        chats = [pool.submit(sampler.chat, question) for question in QUESTIONS]
        completed = pool.submit(sampler.completions, COMPLETION[0])
        for future, answer in [*zip(chats, QUESTIONS.values(), strict=True), (completed, COMPLETION[1])]:
            rollouts += future.result()
            answers[rollouts[-1].group] = answer
    # The ids of the first chat prompt, which no one here had to guess the template for.
    question, answer = next(iter(QUESTIONS.items()))
    rollouts += sampler.generate(question, rollouts[0].prompt_ids)
    answers[rollouts[-1].group] = answer
    return rollouts, answers


def malformed(rollout: Rollout) -> str | None:
    """What makes a rollout useless, if anything does."""
    if not rollout.prompt_ids or not rollout.token_ids:
        return f"{rollout.group}: no ids"
    if len(rollout.token_ids) != len(rollout.logprobs):
        return f"{rollout.group}: {len(rollout.token_ids)} ids but {len(rollout.logprobs)} log-probabilities"
    return None


def reward(text: str, answer: int, length: int) -> float:
    """1 for a text that names the right number; a little less the longer it is, so that a group seldom ties."""
    return float(bool(re.search(rf"\b{answer}\b", text))) - length / 1000


def step(policy: torch.nn.Module, rollouts: list[Rollout], rewards: list[float]) -> list[dict]:
    """Accumulates the gradient of the loss over all groups; says what each group came to."""
    total = sum(len(rollout.token_ids) for rollout in rollouts)
    results = []
    for name, members in groupby(zip(rollouts, rewards, strict=True), key=lambda member: member[0].group):
        group, own = map(list, zip(*members, strict=True))
        # How much better than its siblings a rollout did.
        mean, spread = statistics.mean(own), statistics.pstdev(own)
        advantages = torch.tensor([(value - mean) / (spread + 1e-6) for value in own])
        lengths = torch.tensor([len(rollout.token_ids) for rollout in group])
        gain = advantages.repeat_interleave(lengths)
        old = torch.tensor([logprob for rollout in group for logprob in rollout.logprobs])
        new = score(policy, group)
        ratio = torch.exp(new - old)
        loss = -torch.minimum(ratio * gain, ratio.clamp(1 - CLIP, 1 + CLIP) * gain).sum() / total
        loss.backward()
        results.append(
            {
                "name": name,
                "tokens": len(old),
                "reward": mean,
                "largest_difference": (new - old).abs().max().item(),
                "ratio": ratio.mean().item(),
                "loss": loss.item(),
            }
        )
    return results


def score(policy: torch.nn.Module, group: list[Rollout]) -> torch.Tensor:
    """The policy's log-probability of each sampled token, rollout after rollout.

    The group is one row, its prompt computed once: each rollout sees the prompt and itself, at the positions it would
    have alone. Only what predicts a sampled token goes through the head.
    """
    prompt = group[0].prompt_ids
    assert all(rollout.prompt_ids == prompt for rollout in group), f"{group[0].group}: the prompts differ"
    ids, positions, owner, predicting = list(prompt), list(range(len(prompt))), [-1] * len(prompt), []
    for number, rollout in enumerate(group):
        length = len(rollout.token_ids)
        predicting += [len(prompt) - 1, *range(len(ids), len(ids) + length - 1)]
        ids += rollout.token_ids
        positions += range(len(prompt), len(prompt) + length)
        owner += [number] * length
    owners = torch.tensor(owner)
    visible = (owners[:, None] == owners) | (owners == -1)
    hidden = policy.base_model(
        input_ids=torch.tensor([ids]),
        position_ids=torch.tensor([positions]),
        attention_mask=visible.tril()[None, None],
        use_cache=False,
    ).last_hidden_state[0]
    logits = policy.get_output_embeddings()(hidden[predicting])
    sampled = torch.tensor(ids[len(prompt) :])
    return torch.log_softmax(logits.float(), dim=-1).gather(-1, sampled[:, None]).squeeze(-1)


def gradient_norm(policy: torch.nn.Module) -> float:
    gradients = [parameter.grad for parameter in policy.parameters() if parameter.grad is not None]
    return torch.nn.utils.get_total_norm(gradients).item()


def table(groups: list[dict]) -> str:
    lines = [f"{'group':<58} {'tokens':>6} {'reward':>7} {'max |Δ|':>9} {'ratio':>9} {'loss':>9}"]
    for group in groups:
        name = group["name"].replace("\n", " ")
        lines.append(
            f"{name:<58.58} {group['tokens']:>6} {group['reward']:>7.3f} {group['largest_difference']:>9.1e}"
            f" {group['ratio']:>9.6f} {group['loss']:>9.5f}"
        )
    return "\n".join(lines)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base-url", required=True, help="the server or sidecar, without /v1")
    parser.add_argument("--model-dir", type=Path, required=True, help="the weights that the server serves")
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"))
    parser.add_argument("--tolerance", type=float, default=1e-2, help="largest difference of a log-probability")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
