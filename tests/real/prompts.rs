//! Twenty-four prompts of different kinds, in the target's chat format.

const QUESTIONS: [&str; 24] = [
    "What is the capital of France?",
    "A farmer has 12 sheep and buys 3 pens of 7 sheep each. How many sheep are there?",
    "Write a Python function that reverses a string.",
    "List the planets of the solar system in order.",
    "Repeat this exactly, three times: the quick brown fox jumps over the lazy dog",
    "Translate to French: Where is the library?",
    "Why is the sky blue?",
    "Give me a recipe for pancakes.",
    "Write a haiku about the sea.",
    "Explain photosynthesis to a child.",
    "Count from 1 to 30, separated by commas.",
    "What are three uses of a paperclip?",
    "Summarise the plot of Romeo and Juliet.",
    "Write a SQL query that counts users by country.",
    "Who wrote The Origin of Species, and when?",
    "Compose a polite email declining an invitation.",
    "What is 17 times 23? Show your work.",
    "Name ten animals that live in the ocean.",
    "Write a JSON object that describes a book.",
    "What does the word 'ephemeral' mean?",
    "Describe a sunset over the mountains.",
    "How do I tie a bow tie?",
    "Write the alphabet backwards.",
    "Say something in emoji only: a party at the beach \u{1f389}\u{1f3d6}",
];

/// The prompts, as texts that end where the answer begins.
pub fn prompts() -> Vec<String> {
    QUESTIONS
        .iter()
        .map(|question| format!("<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n"))
        .collect()
}
