"""From a question to the text that the model completes: `templates.toml` holds the templates."""

import json
import re
from collections.abc import Mapping, Sequence

from r1lab.errors import InputError, require_known
from r1lab.files import read_toml
from r1lab.task import Problem, Task

TEMPLATES = read_toml(__file__, "templates")


def prompt_of(task: Task, problem: Problem, tokenizer=None) -> str:
    """Give the text that the model completes when the task asks this problem."""
    if callable(task.template):
        return task.template(problem)
    return apply_template(
        task.template, problem.prompt, tokenizer, task.examples, task.chat_template_kwargs
    )


def apply_template(
    template: str, prompt: str, tokenizer=None, examples: Sequence = (),
    chat_template_kwargs: Mapping = {},
) -> str:  # fmt: skip
    """Give the text that the model completes: by the template's own text, or in the tokenizer's chat form.

    Args:
        template: a name, and after it, as JSON, arguments for the tokenizer's chat template:
            `chat {"enable_thinking": false}`.
        examples: questions with their answers, shown before the prompt in turns of their own.
        chat_template_kwargs: such arguments as a dict.
    Raises:
        InputError: the template or an argument is unknown, or the tokenizer has no chat template or
            one that refuses the messages.
    """
    if any(isinstance(pair, str) or len(pair) != 2 for pair in examples):
        raise InputError("examples are pairs of a question and its answer, in a list.")
    name, _, written = template.partition(" ")
    require_known(name, TEMPLATES, "template")
    chosen = TEMPLATES[name]
    if "text" in chosen:
        head, user, turn = chosen["text"].rpartition("User:")
        before = [f"{user}{turn.format(prompt=asked)} {reply}\n" for asked, reply in examples]
        return "".join([head, *before, user, turn.format(prompt=prompt)])
    if tokenizer is None or not tokenizer.chat_template:
        raise InputError('this tokenizer has no chat template; use template "r1_zero".')
    turns = [("system", chosen["system"])] if "system" in chosen else []
    for asked, reply in (*chosen.get("examples", ()), *examples):
        turns += [("user", asked), ("assistant", reply)]
    options = {**_arguments(written), **chat_template_kwargs}
    text = _render(tokenizer, [*turns, ("user", prompt)], options)
    opening = chosen.get("opening", "")
    if not text.rstrip().endswith(opening.strip()):
        text += opening
    # A start token that the template writes and the tokenizer adds again would be there twice.
    if tokenizer.bos_token and tokenizer("a").input_ids[0] == tokenizer.bos_token_id:
        text = re.sub(rf"^\s*{re.escape(tokenizer.bos_token)}", "", text)
    return text


def _arguments(written):
    """Read the arguments behind a template's name."""
    try:
        return dict(json.loads(written or "{}"))
    except (ValueError, TypeError) as error:
        raise InputError(
            f'{written} are no arguments of a template; write them as {{"enable_thinking": false}}.'
        ) from error


def _render(tokenizer, turns, options):
    """Write a conversation as the tokenizer's chat template does. A system message that it refuses
    (Gemma's) begins the first question."""
    if unknown := [name for name in options if name not in str(tokenizer.chat_template)]:
        raise InputError(f"the model's chat template knows no {', '.join(unknown)}; leave it out.")
    messages = [{"role": role, "content": content} for role, content in turns]
    try:
        return tokenizer.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=True, **options
        )
    except Exception as error:  # whatever a template raises
        if turns[0][0] == "system":
            (_, system), (_, question), *rest = turns
            return _render(tokenizer, [("user", f"{system}\n\n{question}"), *rest], options)
        why = " ".join(str(error).split())
        raise InputError(f"the model's chat template refuses the messages ({why}).") from error
