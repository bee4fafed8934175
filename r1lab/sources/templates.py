"""Prompt templates. `{prompt}` is replaced by the question."""

from r1lab.errors import InputError
from r1lab.task import Problem, Task

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
    "chat_example": "{prompt}",
    "r1": "{prompt}",
}
# For models with a chat template of their own: the system message that asks for the same structure.
CHAT_INSTRUCTION = (
    "First think about the reasoning process, then give the answer. Write the reasoning between "
    "<think> and </think> and the answer between <answer> and </answer>."
)
# For models that do not follow it: a sum of gym_sums, which no test set holds, answered so.
CHAT_EXAMPLE = [
    {
        "role": "user",
        "content": "State the final answer to the following arithmetic problem: 3 + 5 =",
    },
    {"role": "assistant", "content": "<think> 3 + 5 = 8 </think> <answer> 8 </answer>"},
]


def prompt_of(task: Task, problem: Problem, tokenizer=None) -> str:
    """The text that the model completes when the task asks this problem."""
    if callable(task.template):
        return task.template(problem)
    return apply_template(task.template, problem.prompt, tokenizer)


def apply_template(template: str, prompt: str, tokenizer=None) -> str:
    """The text that the model completes.

    With "chat", "chat_example" and "r1" the tokenizer's own chat template is used: "chat" adds an
    instruction that asks for R1-Zero's structure, "chat_example" also a question answered in it;
    "r1" adds nothing and begins the thinking, as DeepSeek advises for R1 and its distilled models
    (README: no system message, begin with <think>).

    Raises:
        InputError: the template is unknown, or the tokenizer has no chat template.
    """
    if template not in TEMPLATES:
        raise InputError(f"unknown template {template!r}; choose one of {', '.join(TEMPLATES)}.")
    if template not in ("chat", "chat_example", "r1"):
        return TEMPLATES[template].format(prompt=prompt)
    if tokenizer is None or not tokenizer.chat_template:
        raise InputError('this tokenizer has no chat template; use template "r1_zero".')
    messages = [{"role": "user", "content": prompt}]
    if template == "chat_example":
        messages = CHAT_EXAMPLE + messages
    if template != "r1":
        messages.insert(0, {"role": "system", "content": CHAT_INSTRUCTION})
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    if template == "r1" and not text.rstrip().endswith("<think>"):
        text += "<think>\n"
    # A start token that the template writes and the tokenizer adds again would stand there twice.
    twice = tokenizer.bos_token and tokenizer("a").input_ids[0] == tokenizer.bos_token_id
    return text.removeprefix(tokenizer.bos_token) if twice else text
