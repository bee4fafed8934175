"""Prompts in the chat forms of other people's models: one start token, system messages, examples, thinking."""

from dataclasses import replace

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from r1lab import Problem, Run, Task
from r1lab.api import evaluate_work
from r1lab.errors import InputError
from r1lab.models.policy import load_tokenizer, save_model
from r1lab.sampling import SamplingParams, TorchSampler
from r1lab.sources.templates import apply_template, prompt_of
from r1lab.training.distributed import World
from r1lab.training.processes import StopRequest
from r1lab.world.bases import build_model

QWEN = """\
{%- if messages[0].role == 'system' %}{{ '<|im_start|>system\\n' + messages[0].content + '<|im_end|>\\n' }}\
{%- endif %}{%- for m in messages if m.role != 'system' %}\
{{ '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}{%- endfor %}\
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}\
{%- if enable_thinking is defined and enable_thinking is false %}{{ '<think>\\n\\n</think>\\n\\n' }}{%- endif %}\
{%- endif %}"""
LLAMA = """\
{{- bos_token }}{%- for m in messages %}\
{{ '<|start_header_id|>' + m.role + '<|end_header_id|>\\n\\n' + m.content | trim + '<|eot_id|>' }}{%- endfor %}\
{%- if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{%- endif %}"""
GEMMA = """\
{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}\
{% endif %}{% for m in messages %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}\
{{ raise_exception('Conversation roles must alternate') }}{% endif %}\
{{ '<start_of_turn>' + ('model' if m['role'] == 'assistant' else m['role']) + '\\n' + m['content'] | trim \
+ '<end_of_turn>\\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<start_of_turn>model\\n' }}{% endif %}"""
R1 = "{{ bos_token }}{% for m in messages %}{{ m.role + ':' + m.content }}{% endfor %}{{ 'Assistant:<think>\\n' }}"
# chat template, start token, end token, pad token, and whether the tokenizer adds the start token itself
MODELS = {
    "qwen": (QWEN, None, "<|im_end|>", "<|endoftext|>", False),
    "llama": (LLAMA, "<|begin_of_text|>", "<|eot_id|>", "<|eot_id|>", True),  # pads with its end token
    "gemma": (GEMMA, "<bos>", "<end_of_turn>", "<pad>", True),
    "distilled": (R1, "<s>", "</s>", "</s>", True),
    "line first": ("\n " + LLAMA.replace("{{-", "{{"), "<s>", "</s>", None, True),
    "not added": (LLAMA, "<s>", "</s>", None, False),
}
CHARACTERS = [chr(code) for code in range(32, 127)] + ["\n"]


def made(kind: str, side: str = "right") -> PreTrainedTokenizerFast:
    """A tokenizer of single characters with the special tokens and the chat template of its kind."""
    template, start, end, pad, adds = MODELS[kind]
    special = [token for token in dict.fromkeys((start, end, pad)) if token]
    vocabulary = {token: number for number, token in enumerate([*special, *CHARACTERS])}
    raw = Tokenizer(models.WordLevel(vocabulary, unk_token=" "))
    raw.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    if adds:
        raw.post_processor = processors.TemplateProcessing(
            single=f"{start} $A", special_tokens=[(start, vocabulary[start])]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=raw, bos_token=start, eos_token=end, pad_token=pad, chat_template=template,
        padding_side=side,
    )  # fmt: skip


PROBLEM = Problem("p", "own", 1, "en", "2 + 2 =", "4")
SHOWN = [("1 + 1 =", "it is 2"), ("3 + 3 =", "it is 6")]


@pytest.mark.parametrize("template", ["chat", "chat_example", "r1", "r1_zero"])
@pytest.mark.parametrize("kind", MODELS)
def test_a_prompt_holds_all_parts_in_order_and_one_start_token(kind, template):
    tokenizer = made(kind)
    text = prompt_of(Task("t", [], [], {}, template=template, examples=SHOWN), PROBLEM, tokenizer)
    parts = [part for pair in SHOWN for part in pair] + [PROBLEM.prompt]
    parts = ["<answer>", *parts] if template in ("chat", "chat_example") else parts
    places = [text.find(part) for part in parts]
    assert places == sorted(places) and min(places) >= 0
    assert text.count(PROBLEM.prompt) == 1 and text.count("it is") == 2
    ids = tokenizer(text).input_ids
    starts = ids.count(tokenizer.bos_token_id) if tokenizer.bos_token else 0
    written = MODELS[kind][4] or (tokenizer.bos_token and template != "r1_zero")
    assert starts == bool(written) and (not starts or ids[0] == tokenizer.bos_token_id)
    assert ids[-1] not in tokenizer.all_special_ids
    assert template != "r1" or (text.endswith("<think>\n") and text.count("<think>") == 1)


def test_a_refused_system_message_begins_the_question():
    text = apply_template("chat", "2 + 2 =", made("gemma"))
    assert text.startswith("<start_of_turn>user\nFirst think") and "</answer>.\n\n2 + 2 =<end" in text
    assert "system\nFirst" in apply_template("chat", "2 + 2 =", made("qwen"))


def test_messages_that_a_template_refuses_are_one_sentence_with_its_words():
    tokenizer = made("gemma")
    for broken in ("{{ raise_exception('No\n role here') }}", "{{ messages[9].content.strip() }}", "{% if %}"):
        tokenizer.chat_template = broken
        with pytest.raises(InputError, match="chat template refuses the messages") as error:
            apply_template("chat", "2 + 2 =", tokenizer)
        assert "\n" not in str(error.value)
    tokenizer.chat_template = None
    with pytest.raises(InputError, match="no chat template"):
        apply_template("r1", "2 + 2 =", tokenizer)


@pytest.mark.parametrize("how", [
    {"template": 'chat {"enable_thinking": false}'},
    {"template": "chat", "chat_template_kwargs": {"enable_thinking": False}},
])  # fmt: skip
def test_thinking_is_switched_off_by_the_task(how):
    rows = [{"question": f"{n} + 1 =", "answer": n + 1} for n in range(4)]
    usual, other = Task.from_dataset(rows, test=1), Task.from_dataset(rows, test=1, **how)
    texts = [prompt_of(task, PROBLEM, made("qwen")) for task in (usual, other)]
    assert texts[1] == f"{texts[0]}<think>\n\n</think>\n\n"
    assert usual.fingerprint() != other.fingerprint()
    with pytest.raises(InputError, match="knows no enable_thinking"):
        prompt_of(other, PROBLEM, made("llama"))
    gym = Task.from_gym("chain_sum", test=4, chat_template_kwargs={"enable_thinking": False}, examples=SHOWN)
    assert gym.chat_template_kwargs and gym.examples == SHOWN


@pytest.mark.parametrize("written", ["chat enable_thinking", "chat [1]", "chat {", "other {}"])
def test_arguments_that_cannot_be_read_are_refused(written):
    with pytest.raises(InputError, match="no arguments of a template|no template 'other'"):
        apply_template(written, "2 + 2 =", made("qwen"))


@pytest.mark.parametrize("examples", [("2 + 2 =", "4"), [("a", "b", "c")], ["ab"]])
def test_examples_are_pairs(examples):
    with pytest.raises(InputError, match="pairs of a question and its answer"):
        apply_template("small", "2 + 2 =", None, examples)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("kind", ["qwen", "llama", "line first"])
def test_padding_changes_no_answer_on_whatever_side_and_with_whatever_token(kind, side, tmp_path):
    """A batch of prompts of different lengths, and each alone."""
    torch.manual_seed(0)
    model = build_model("tiny", len(made(kind)))
    save_model(model, made(kind, side), tmp_path)
    tokenizer = load_tokenizer(tmp_path)
    assert tokenizer.pad_token_id is not None
    texts = [apply_template("r1", "1 + 1 ="[n:], tokenizer) for n in (0, 4)]
    prompts = [tokenizer(text).input_ids for text in texts]
    params = SamplingParams(max_tokens=8, temperature=0.0)
    together = TorchSampler(model, tokenizer).generate(prompts, params).completion_ids
    alone = [TorchSampler(model, tokenizer).generate([one], params).completion_ids[0] for one in prompts]
    assert together == alone and len(prompts[0]) > len(prompts[1])


def test_an_evaluation_names_the_question_that_leaves_no_room(tmp_path):
    task = Task("own", [], [replace(PROBLEM, id=f"q{n}", prompt="1+" * 9 * n) for n in (1, 2)], {}, template="small")
    with pytest.raises(InputError, match="question q2 has .* lower max_tokens"):
        evaluate_work(World(), StopRequest(), Run(tmp_path), "data/tiny", task, {"k": 1}, max_tokens=480)
