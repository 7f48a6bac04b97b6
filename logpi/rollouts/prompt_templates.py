"""Prompt templates for base models, which have no chat template: by name, or the user's own text
with {prompt}.

    r1-zero    DeepSeek-R1-Zero (arXiv:2501.12948, table 1), as published

Left out: chat templates (the tokenizer has them), and the question templates of benchmarks
(`envs/benchmarks.py`).
"""

from __future__ import annotations

TEMPLATES = {
    "r1-zero": (
        "A conversation between User and Assistant. The user asks a question, and the Assistant"
        " solves it. The assistant first thinks about the reasoning process in the mind and then"
        " provides the user with the answer. The reasoning process and answer are enclosed within"
        " <think> </think> and <answer> </answer> tags, respectively, i.e., <think> reasoning"
        " process here </think> <answer> answer here </answer>. User: {prompt}. Assistant:"
    ),
}


def named(text: str) -> str:
    """A template by its name, or `text` itself.

    Raises:
        ValueError: neither a name nor a text with {prompt}.

    >>> named("Q: {prompt} A:")
    'Q: {prompt} A:'
    """
    template = TEMPLATES.get(text, text)
    if "{prompt}" not in template:
        raise ValueError(
            f"a prompt template is a text with {{prompt}}, or one of: {', '.join(TEMPLATES)}; not"
            f" {text!r}"
        )
    return template


def filled(template: str, prompt: str) -> str:
    """The template with `prompt` in its place. Braces in the prompt are text. The template's full
    stop is dropped behind a prompt that ends a sentence.

    >>> filled("User: {prompt}. Assistant:", "What is {x}+1? Think.")
    'User: What is {x}+1? Think. Assistant:'
    >>> filled("User: {prompt}. Assistant:", "3+4?")
    'User: 3+4? Assistant:'
    """
    before, _, after = template.partition("{prompt}")
    is_sentence = prompt.rstrip().endswith((".", "?", "!", "。", "？", "！"))
    return before + prompt + (after.removeprefix(".") if is_sentence else after)
