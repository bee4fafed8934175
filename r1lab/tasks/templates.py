"""Prompt templates. `{prompt}` is replaced by the question."""

from r1lab.errors import InputError

# R1-Zero's template prescribes structure only (paper v1 Table 1). `small` is its shape without
# the instruction, for a base that has read nothing but the small world.
TEMPLATES = {
    "small": "User: {prompt} Assistant:",
    "r1_zero": (
        "A conversation between User and Assistant. The user asks a question, and the Assistant "
        "solves it. The assistant first thinks about the reasoning process in the mind and then "
        "provides the user with the answer. The reasoning process and answer are enclosed within "
        "<think> </think> and <answer> </answer> tags, respectively, i.e., <think> reasoning "
        "process here </think> <answer> answer here </answer>. User: {prompt}. Assistant:"
    ),
    "chat": "{prompt}",
}
# For models with a chat template of their own: the system message that asks for the same structure.
CHAT_INSTRUCTION = (
    "First think about the reasoning process, then give the answer. Write the reasoning between "
    "<think> and </think> and the answer between <answer> and </answer>."
)


def apply_template(template: str, prompt: str, tokenizer=None) -> str:
    """The text that the model completes.

    With template "chat" the tokenizer's own chat template is used, with an instruction that asks
    for R1-Zero's structure.

    Raises:
        InputError: the template is unknown, or the tokenizer has no chat template.
    """
    if template not in TEMPLATES:
        raise InputError(f"unknown template {template!r}; choose one of {', '.join(TEMPLATES)}.")
    if template != "chat":
        return TEMPLATES[template].format(prompt=prompt)
    if tokenizer is None or not tokenizer.chat_template:
        raise InputError('this tokenizer has no chat template; use template "r1_zero".')
    messages = [
        {"role": "system", "content": CHAT_INSTRUCTION},
        {"role": "user", "content": prompt},
    ]
    return tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
