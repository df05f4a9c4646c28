"""What the cases ask. The ids are SmolLM2's."""

MODEL = "smol"

FRANCE = "The capital of France is"
FRANCE_IDS = [504, 3575, 282, 4649, 314]
COUNTING = "Count: one, two, three,"
"""Goes on with ` four, five, six, seven, eight, nine, ten, eleven,`."""
COUNTING_IDS = [9825, 42, 582, 28, 827, 28, 1296, 28]
EMOJI = "🎉🎊🥳🎉🎊🥳🎉🎊🥳"
"""Goes on with emoji of two or three tokens each."""
RUSSIAN = "Привет, мир! Привет, мир! Привет,"
JAPANESE = "日本語と中国語。日本語と中国語。日本語"
CODE = "def add(a, b):\n"

HI = [{"role": "user", "content": "Say hi."}]
"""Answered with 23 tokens and the end."""
# The same, rendered by the model's chat template.
HI_IDS = [1, 9690, 198, 2683, 359, 253, 5356, 5646, 11173, 3365, 3511, 308, 34519, 28, 7018, 411, 407, 19712, 8182, 2]
HI_IDS += [198, 1, 4093, 198, 36218, 15876, 30, 2, 198, 1, 520, 9531, 198]
SKY = [{"role": "user", "content": "Answer with one word: is the sky blue?"}]

END = 2
"""`<|im_end|>`, which ends an answer."""
COMMA = 28

MAX_MODEL_LEN = 4096
LONG_IDS = (FRANCE_IDS * MAX_MODEL_LEN)[: MAX_MODEL_LEN - 10]
"""Leaves room for ten tokens."""

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": "The weather in a city",
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
        },
    }
]
USAGE = {"include_usage": True}
CONTINUOUS = {"include_usage": True, "continuous_usage_stats": True}
