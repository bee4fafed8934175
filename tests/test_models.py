"""Tokenizer, policy, loading, and the log-probs behind them."""

import copy
import itertools
import json
from dataclasses import replace

import pytest
import torch
from transformers import GPTJConfig, GPTJForCausalLM, LlamaConfig, LlamaForCausalLM

from r1lab.errors import InputError
from r1lab.world.skills import summarize_skills
from r1lab.models import cpu_linear
from r1lab.models.places import local_model
from r1lab.models.policy import Policy, load_model, load_policy, load_tokenizer, refuse_unknown_words
from r1lab.world.bases import MAX_POSITIONS, build_model
from r1lab.world.bases import RESERVED, build_tokenizer, vocabulary
from r1lab.task import load_problems
from r1lab.world.corpus import CORPUS, documents
from r1lab.task import Problem, Task
from r1lab.rewards import accuracy
from r1lab.training.config import GRPOConfig
from r1lab.training.distributed import World
from r1lab.training.processes import StopRequest
from r1lab.training.rl import grpo
from r1lab.run import Run
from r1lab.world.bases import PRETRAIN_PRESETS, pretrain

TOKENIZER = build_tokenizer()


def test_text_survives_the_tokenizer_and_nothing_is_unknown():
    for prompt, completion in itertools.islice(documents(CORPUS, 3), 2000):
        ids = TOKENIZER(f"{prompt} {completion}").input_ids
        assert TOKENIZER.unk_token_id not in ids
        assert TOKENIZER(TOKENIZER.decode(ids)).input_ids == ids


def test_decoded_text_is_spaced_as_people_write_it():
    text = "User: make 13 from 9,5,1 Assistant: <think> 9-5=4+1=5:13 no wait 9+5=14:13对 </think>"
    assert TOKENIZER.decode(TOKENIZER(text).input_ids) == text


def test_the_vocabulary_is_small_unique_and_has_room():
    words = vocabulary()
    assert len(words) == len(set(words)) < 512
    assert len(RESERVED) == 32 and set(RESERVED) <= set(words)


def qwen() -> torch.nn.Module:
    torch.manual_seed(0)
    return build_model("tiny", len(TOKENIZER))


def llama() -> torch.nn.Module:
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(
        vocab_size=200, hidden_size=32, intermediate_size=32, num_hidden_layers=1,
        num_attention_heads=2, num_key_value_heads=1,
    ))  # fmt: skip


@pytest.mark.parametrize("make", [qwen, llama])
def test_policy_scores_like_the_logits_of_the_model(make):
    model = make()
    ids = torch.randint(3, 200, (3, 20))
    mask = torch.zeros(3, 20, dtype=torch.bool)
    mask[0, 5:12] = mask[1, 7:20] = mask[2, 3:4] = True
    out = Policy(model)(ids, mask, 0.7)
    expected = (model(ids).logits / 0.7).log_softmax(-1)
    for row, (start, end) in enumerate(((5, 12), (7, 20), (3, 4))):
        before = expected[row, start - 1 : end - 1]
        chosen = before.gather(-1, ids[row, start:end, None])[:, 0]
        assert torch.allclose(out.logp[row, : end - start], chosen, atol=1e-5)
        entropy = -(before.exp() * before).sum(-1)
        assert torch.allclose(out.entropy[row, : end - start], entropy, atol=1e-4)
        assert (out.logp[row, end - start :] == 0).all()
    assert out.logp.shape == (3, 13) and out.logp.dtype == torch.float32


def test_the_llama_of_a_size_is_its_qwen2_without_biases(tmp_path):
    config = replace(PRETRAIN_PRESETS["llama"], steps=1, tokens_per_step=256, size="tiny")
    twin = replace(config, architecture="qwen2")
    assert replace(PRETRAIN_PRESETS["llama"], architecture="qwen2") == PRETRAIN_PRESETS["small"]
    shapes = {}
    for name, each in (("llama", config), ("qwen2", twin)):
        (tmp_path / name).mkdir()
        assert pretrain(World(), StopRequest(), Run(tmp_path / name), each)
        policy, tokenizer = load_policy(Run(tmp_path / name).checkpoints[-1])
        shapes[name] = {key: p.shape for key, p in policy.model.named_parameters()}
        assert policy.model.config.model_type == name
        assert tokenizer("make 13 from 9,5,1").input_ids == TOKENIZER("make 13 from 9,5,1").input_ids
    biases = {key for key in shapes["qwen2"] if key.endswith(".bias")}
    assert len(biases) == 3 * 2 and not any("bias" in key for key in shapes["llama"])
    assert shapes["llama"] == {key: s for key, s in shapes["qwen2"].items() if key not in biases}


def test_right_padding_changes_no_log_prob():
    policy = Policy(qwen())
    ids = torch.randint(3, 200, (1, 12))
    mask = torch.arange(12)[None] >= 4
    longer = torch.cat([ids, torch.zeros(1, 8, dtype=torch.long)], 1)
    padded = torch.cat([mask, torch.zeros(1, 8, dtype=torch.bool)], 1)
    assert torch.allclose(policy(ids, mask).logp, policy(longer, padded).logp, atol=1e-5)


def test_a_head_with_a_bias_is_refused():
    config = GPTJConfig(vocab_size=40, n_positions=16, n_embd=16, n_layer=1, n_head=2, rotary_dim=4)
    with pytest.raises(InputError, match="bias"):
        Policy(GPTJForCausalLM(config))


def test_a_copied_policy_computes_with_its_own_weights(monkeypatch):
    """The reference policy is a copy: on AMD processors it once ran on the policy's weights."""
    monkeypatch.setattr(cpu_linear, "prefers_onednn", lambda: True)
    policy = Policy(qwen())
    ids, mask = torch.randint(3, 200, (2, 8)), torch.arange(8) > 2
    mask = mask.expand(2, 8)
    before = policy(ids, mask).logp
    copied = copy.deepcopy(policy)
    with torch.no_grad():
        for name, weight in copied.named_parameters():
            weight.mul_(2.0 if "proj" in name else 1.0)
    assert (copied(ids, mask).logp - before).abs().max() > 0.01
    assert torch.equal(policy(ids, mask).logp, before)


def test_onednn_gives_the_same_products_and_gradients(monkeypatch):
    monkeypatch.setattr(cpu_linear, "prefers_onednn", lambda: True)
    torch.manual_seed(0)
    plain, fast = torch.nn.Linear(24, 40), torch.nn.Linear(24, 40)
    fast.load_state_dict(plain.state_dict())
    cpu_linear.speed_up_linear_layers(torch.nn.Sequential(fast))
    for layer in (plain, fast):
        layer.x = torch.randn(3, 7, 24, generator=torch.Generator().manual_seed(1)).requires_grad_()
        layer.out = layer(layer.x)
        layer.out.square().sum().backward()
    assert fast.out.grad_fn.name() != plain.out.grad_fn.name()
    for a, b in ((plain.out, fast.out), (plain.x.grad, fast.x.grad),
                 (plain.weight.grad, fast.weight.grad), (plain.bias.grad, fast.bias.grad)):  # fmt: skip
        assert torch.allclose(a, b, atol=1e-4)


def saved(tmp_path, vocabulary_size: int):
    build_model("tiny", vocabulary_size).save_pretrained(tmp_path)
    TOKENIZER.save_pretrained(tmp_path)
    return tmp_path


def test_a_folder_is_loaded_with_its_own_tokenizer(tmp_path):
    policy, tokenizer = load_policy(saved(tmp_path, len(TOKENIZER)))
    assert tokenizer.decode(tokenizer("make 5 from 3,2").input_ids) == "make 5 from 3,2"
    assert next(policy.parameters()).dtype == torch.float32


@pytest.mark.parametrize(("place", "message"), [
    ("data/nothing", "data/nothing.*config.json is missing"),
    ("SmolLM2", "did you mean smollm2"),
    ("zer0", "did you mean data/zero"),
    ("data/bsae", "did you mean data/base"),
    ("no-such-thing", "give a model's folder"),
    ("some/where/else", "give a model's folder"),
    ("data", "no model there"),
    ("nothing.gguf", "nothing.gguf is missing"),
    ("models/nothing.gguf", "nothing.gguf is missing"),
])  # fmt: skip
def test_a_name_that_no_model_has_is_refused_at_once(place, message, monkeypatch):
    """The Hub was asked for it, for a minute."""
    monkeypatch.setattr("r1lab.models.places.HfApi", None)
    with pytest.raises(InputError, match=message):
        load_model(place)


def test_the_hub_is_asked_once_and_what_was_downloaded_is_enough(monkeypatch):
    asked = []

    class Unreachable:
        def model_info(self, name, timeout):
            asked.append(name)
            raise OSError("no network")

    monkeypatch.setattr("r1lab.models.places.HfApi", Unreachable)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    with pytest.raises(InputError, match="owner/model: .*out of reach.*check the.*network"):
        load_model("owner/model")
    assert asked == ["owner/model"]


def test_the_folder_of_a_run_is_its_last_checkpoint(tmp_path):
    """As `r1lab sample runs/zero`, which anybody types after `make zero`."""
    (tmp_path / "config.json").write_text('{"settings": "of the run"}')
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(InputError, match="the run's first checkpoint is missing"):
        load_model(tmp_path)
    for step, size in ((2, 8), (10, 0)):
        saved(tmp_path / "checkpoints" / f"step-{step:06d}", len(TOKENIZER) + size)
    assert local_model(tmp_path).name == "step-000010"
    assert load_model(tmp_path)[0].config.vocab_size == len(TOKENIZER)


def test_words_that_the_model_does_not_know_are_named():
    refuse_unknown_words(["make 5 from 3,2", "3+2 <|unknown|>"], TOKENIZER, "data/base")
    with pytest.raises(InputError, match="data/base does not know .What, plus, nothing"):
        refuse_unknown_words(["3+2", "What is 1+2, plus nothing?"], TOKENIZER, "data/base")


def test_a_task_in_words_that_the_model_does_not_know_is_refused_before_a_run(tmp_path):
    asked = [Problem(f"own-{i}", "own", 1, "en", f"What is {i}+1?", str(i + 1)) for i in range(2)]
    task = Task("own", asked, [replace(asked[0], prompt="0+1")], {"accuracy": accuracy}, None, "small")
    with pytest.raises(InputError, match="questions hold words that data/base does not know"):
        grpo("data/base", task, GRPOConfig.preset("cpu", processes=1), runs=tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_tokenizer_that_spells_every_word_refuses_none():
    tokenizer = copy.deepcopy(TOKENIZER)
    tokenizer.unk_token = None
    refuse_unknown_words(["What is 1+2?"], tokenizer, "model")


def test_the_tokenizer_comes_without_the_weights(tmp_path):
    folder = saved(tmp_path, len(TOKENIZER))
    (folder / "model.safetensors").unlink()
    assert load_tokenizer(folder)("make 5").input_ids == TOKENIZER("make 5").input_ids


def test_damaged_weights_are_named(tmp_path):
    folder = saved(tmp_path, len(TOKENIZER))
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:2000])
    with pytest.raises(InputError, match="cannot be loaded"):
        load_model(folder)


def test_a_tokenizer_that_does_not_fit_is_refused(tmp_path):
    with pytest.raises(InputError, match="do not belong together"):
        load_model(saved(tmp_path, 100))


def test_the_shipped_base_has_the_skills_it_promises():
    """As recorded in data/base/skills.json by `r1lab skills data/base --save`."""
    recorded = json.loads(open("data/base/skills.json").read())["signs"]
    assert recorded["steps_right"] >= 0.99
    assert min(recorded["ok_right"], recorded["no_right"]) >= 0.95
    assert recorded["persists"] < 0.5


def test_the_shipped_base_sees_every_position_a_run_can_reach():
    model, tokenizer = load_model("data/base")
    assert model.config.max_position_embeddings == MAX_POSITIONS
    assert len(tokenizer) == len(TOKENIZER)
    assert max(len(TOKENIZER(p.prompt).input_ids) for p in load_problems("data/test_signs.jsonl")) < 40


def test_skills_and_habits_are_counted_apart():
    problem = Problem("x", "signs", 2, "en", "", "9+5-1", None, {"numbers": [9, 5, 1], "target": 13})
    first, hit = "9+5=14+1=15:13 no", "9+5=14-1=13:13 ok"
    free = [
        (problem, "", f"<think> {first} wait {hit} </think> <answer> 9+5-1 </answer>"),
        (problem, "", f"<think> {first} </think> <answer> 9+5+1 </answer>"),
        (problem, "", "<think> </think> <answer> 9+5+1 </answer>"),
    ]
    started = [
        (problem, f"<think> {first} wait", f"<think> {first} wait {hit} </think> 9+5-1"),
        (problem, f"<think> {first} wait", f"<think> {first} wait 9+5=14+1=16:13 ok </think> 9+5"),
    ]
    skills = summarize_skills(free, started)
    assert skills.persists == 0.5  # one of the two failed attempts was followed by another
    assert skills.steps_right == 0.75
    assert skills.ok_right == 0.5 and skills.no_right is None
    assert skills.answer_copies_last == 0.5
    assert skills.repeats == 0.5
