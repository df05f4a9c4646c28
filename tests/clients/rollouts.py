"""Rollouts as a trainer asks for them: groups of sampled answers with their ids and log-probabilities.

Each of the three endpoints that can give them is asked through the official OpenAI client.
"""

from dataclasses import dataclass

import openai

GROUP = 4
MAX_TOKENS = 48


@dataclass
class Rollout:
    """One sampled answer: the ids that the server saw and drew, and the log-probability it drew each with."""

    group: str
    prompt_ids: list[int]
    token_ids: list[int]
    logprobs: list[float]


class Sampler:
    """Asks one server."""

    def __init__(self, url: str):
        self.url = url.rstrip("/")
        self.client = openai.OpenAI(base_url=f"{self.url}/v1", api_key="none", max_retries=0, timeout=240)
        self.model = self.client.models.list().data[0].id
        self.sampling = {"n": GROUP, "temperature": 1.0, "max_tokens": MAX_TOKENS}

    def chat(self, question: str) -> list[Rollout]:
        reply = self.client.chat.completions.create(
            model=self.model,
            messages=[{"role": "user", "content": question}],
            logprobs=True,
            extra_body={"return_token_ids": True},
            **self.sampling,
        )
        return [
            Rollout(
                f"chat: {question}",
                reply.prompt_token_ids,
                choice.token_ids,
                [entry.logprob for entry in choice.logprobs.content],
            )
            for choice in reply.choices
        ]

    def completions(self, question: str) -> list[Rollout]:
        reply = self.client.completions.create(
            model=self.model, prompt=question, logprobs=1, extra_body={"return_token_ids": True}, **self.sampling
        )
        return [
            Rollout(f"completions: {question}", choice.prompt_token_ids, choice.token_ids, choice.logprobs.token_logprobs)
            for choice in reply.choices
        ]

    def generate(self, question: str, prompt_ids: list[int]) -> list[Rollout]:
        """Tokens in, tokens out: what a trainer that renders and tokenizes by itself uses."""
        reply = self.client.post(
            f"{self.url}/inference/v1/generate",
            cast_to=object,
            body={"model": self.model, "token_ids": prompt_ids, "sampling_params": self.sampling | {"logprobs": 0}},
        )
        return [
            Rollout(
                f"generate: {question}",
                prompt_ids,
                choice["token_ids"],
                [entry["logprob"] for entry in choice["logprobs"]["content"]],
            )
            for choice in reply["choices"]
        ]
