"""What the demo's rollouts are asked: easy and hard to draft, by turns.

Arithmetic and quoting leave the model little choice, so a draft is often right; open questions
leave it much.
"""

_PASSAGE = (
    "The lighthouse at Cape Arrow was built in 1874 from granite cut on the mainland. Its lamp burned "
    "whale oil until 1902, when it was changed to paraffin, and electricity came in 1951. The last keeper "
    "left in 1983, and since then the light has been tended from the harbour office."
)

PROMPTS = [
    # Arithmetic word problems
    "A baker makes 7 trays of 12 rolls and sells 59 of them. How many rolls are left? Work step by step.",
    "Maya reads 18 pages a day. Her book has 243 pages and she has read 99. How many days does she still need?",
    "A train leaves at 09:40 and arrives at 13:05. How long is the journey? Show each step.",
    "Tickets cost 8 dollars for adults and 5 for children. What do 4 adults and 9 children pay together?",
    # Quoting and summarising
    f"Repeat the following text word for word:\n\n{_PASSAGE}",
    f"Summarise the following text in one sentence:\n\n{_PASSAGE}",
    f"List the years that this text names, with what happened in each:\n\n{_PASSAGE}",
    "Correct the spelling and repeat the sentence: 'The wether was beutiful so we whent to the beech.'",
    # Code
    "Write a Python function that returns the n-th Fibonacci number, with a docstring.",
    "Write a Python function that checks whether a string is a palindrome, and show two calls of it.",
    "Write an SQL query that counts the orders of each customer in a table named orders.",
    "Write an HTML page with a heading, a paragraph and a list of three fruits.",
    # Open questions
    "What makes a good teacher?",
    "Tell me a short story about a fox who learns to swim.",
    "Why do leaves change colour in autumn?",
    "Give me three ideas for a rainy weekend.",
]
