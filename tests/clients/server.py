"""The requests that the checks are made of, at one base URL."""

import openai

MESSAGES = [{"role": "user", "content": "Name three primary colours."}]


class Server:
    """Gives replies as plain data: what the server sent, without the client's own defaults."""

    def __init__(self, url: str):
        self.client = openai.OpenAI(base_url=f"{url.rstrip('/')}/v1", api_key="none", max_retries=0, timeout=120)
        self.model = self.client.models.list().data[0].id

    def complete(self, **parameters) -> dict:
        reply = self.client.completions.create(**{"model": self.model, **parameters})
        return reply.model_dump(exclude_unset=True)

    def stream(self, **parameters) -> list[dict]:
        """The chunks of a streamed completion."""
        return self._chunks(self.client.completions, parameters)

    def chat(self, **parameters) -> dict:
        parameters = {"model": self.model, "messages": MESSAGES, **parameters}
        return self.client.chat.completions.create(**parameters).model_dump(exclude_unset=True)

    def chat_stream(self, **parameters) -> list[dict]:
        return self._chunks(self.client.chat.completions, {"messages": MESSAGES, **parameters})

    def _chunks(self, endpoint, parameters: dict) -> list[dict]:
        stream = endpoint.create(**{"model": self.model, "stream": True, **parameters})
        return [chunk.model_dump(exclude_unset=True) for chunk in stream]
