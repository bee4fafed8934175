"""From a question to the text that the model completes: `templates.toml` holds the templates."""

import tomllib
from pathlib import Path

from r1lab.errors import InputError
from r1lab.task import Problem, Task

TEMPLATES = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))


def prompt_of(task: Task, problem: Problem, tokenizer=None) -> str:
    """Give the text that the model completes when the task asks this problem."""
    if callable(task.template):
        return task.template(problem)
    return apply_template(task.template, problem.prompt, tokenizer)


def apply_template(template: str, prompt: str, tokenizer=None) -> str:
    """Give the text that the model completes: by the template's own text, or in the tokenizer's chat form.

    Raises:
        InputError: the template is unknown, or the tokenizer has no chat template.
    """
    if template not in TEMPLATES:
        raise InputError(f"unknown template {template!r}; choose one of {', '.join(TEMPLATES)}.")
    chosen = TEMPLATES[template]
    if "text" in chosen:
        return chosen["text"].format(prompt=prompt)
    if tokenizer is None or not tokenizer.chat_template:
        raise InputError('this tokenizer has no chat template; use template "r1_zero".')
    messages = [*chosen.get("examples", ()), {"role": "user", "content": prompt}]
    if "system" in chosen:
        messages.insert(0, {"role": "system", "content": chosen["system"]})
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    opening = chosen.get("opening", "")
    if not text.rstrip().endswith(opening.strip()):
        text += opening
    # A start token that the template writes and the tokenizer adds again would be there twice.
    twice = tokenizer.bos_token and tokenizer("a").input_ids[0] == tokenizer.bos_token_id
    return text.removeprefix(tokenizer.bos_token) if twice else text
