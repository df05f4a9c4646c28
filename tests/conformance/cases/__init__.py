"""Every case of the suite, in the order of the table."""

from case import Case

from cases import chat, completions, errors, generate, trainers

ALL: list[Case] = [*trainers.CASES, *completions.CASES, *chat.CASES, *generate.CASES, *errors.CASES]
