"""LoRA: what is trained, sampled, stored and merged, and what is refused."""

import json
import shutil
from dataclasses import replace

import peft
import pytest
import torch
import tyro
from safetensors.torch import load_file

from r1lab.errors import InputError
from r1lab.models import lora
from r1lab.models.lora import LoRA, MaybeLoRA, adapted, add_adapter, merged, own_parameters, sharing_copy
from r1lab.models.policy import Policy, load_model
from r1lab.run import Run, as_json
from r1lab.sampling import SamplingParams
from r1lab.training.config import GRPOConfig
from r1lab.training.distributed import World
from r1lab.training.loop import Learner
from r1lab.training.processes import StopRequest
from r1lab.training.rl import described, grpo
from r1lab.training.sft import SFTConfig, fine_tune
from tests.small_run import Job, coin_task, stored_tensors, tiny_model
from tests.test_resume import CONFIG

RANK4 = replace(CONFIG, rollouts=4, lora=LoRA(4, targets=("q_proj", "v_proj", "down_proj")))
IDS = torch.randint(5, 40, (2, 24), generator=torch.Generator().manual_seed(0))
COMPLETION = torch.arange(24).expand(2, -1) >= 8


@pytest.fixture(scope="module")
def job(tmp_path_factory) -> Job:
    folder = tmp_path_factory.mktemp("model")
    return Job(tiny_model(folder), coin_task(folder), RANK4)


@pytest.fixture(scope="module")
def run(job, tmp_path_factory) -> Run:
    run = job.start(tmp_path_factory.mktemp("runs") / "run")
    assert job.work(run) == 0
    return run


def opened(job: Job, **settings):
    """The model with a fresh adapter, whose B is not 0 any more."""
    model, tokenizer = load_model(job.model)
    add_adapter(model, LoRA(**settings), job.model, seed=0)
    for name, weight in own_parameters(model).items():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.1)
    return model, tokenizer


def test_a_checkpoint_is_an_adapter_that_peft_loads_and_merged_it_says_the_same(job, run):
    files = {path.name for path in run.model.iterdir()}
    assert {"adapter_config.json", "adapter_model.safetensors", "trainer.pt", "tokenizer.json"} <= files
    assert "model.safetensors" not in files
    assert json.loads((run.model / "adapter_config.json").read_text())["base_model_name_or_path"] == job.model
    apart, whole = load_model(run.model, merged=False)[0], load_model(run.folder)[0]
    theirs = peft.PeftModel.from_pretrained(load_model(job.model)[0], run.model)
    base = load_model(job.model)[0](IDS).logits
    for model in (apart, whole):
        assert (model(IDS).logits - theirs(IDS).logits).abs().max() < 1e-5
    assert (whole(IDS).logits - base).abs().max() > 1e-4
    assert not adapted(whole) and whole.state_dict().keys() == load_model(job.model)[0].state_dict().keys()


def test_a_stopped_run_ends_with_the_same_adapter_and_reference(job, run, tmp_path):
    parts = job.start(tmp_path / "run")
    for stop_after in (1, 2, None):
        job.work(parts, stop_after)
    adapters = [load_file(one.model / "adapter_model.safetensors") for one in (run, parts)]
    references = [
        {name: value for name, value in stored_tensors(one.model).items() if "reference" in name}
        for one in (run, parts)
    ]
    for whole, resumed in (adapters, references):
        assert whole.keys() == resumed.keys() and len(whole) == 12  # A and B of 3 layers, twice
        assert all(torch.equal(whole[key], resumed[key]) for key in whole)


def test_a_finished_run_is_extended_and_its_settings_are_read_again(job, run):
    stored = run.config["lora"]
    assert stored == as_json(RANK4)["lora"] and GRPOConfig.of_run(run.config) == RANK4
    with pytest.raises(InputError, match=r"other settings \(lora\)"):
        about = {"model": job.model, "task": described(job.task)}
        run.prepare(replace(RANK4, lora=None), about, resume=True)


def test_the_sampler_has_merged_weights_and_says_what_the_scorer_says(job):
    model, tokenizer = opened(job, rank=4)
    learner = Learner(replace(CONFIG, lora=LoRA(4)), job.task, Policy(model), tokenizer, World())
    learner.refresh_sampler()
    assert not adapted(learner.sampler.model) and adapted(learner.policy.model)
    prompts = [tokenizer(text).input_ids for text in ("make 7 from 3,4", "make 9 from 1,8")]
    drawn = learner.sampler.generate(prompts, SamplingParams(n=4, max_tokens=12))
    for prompt, answer, said in zip(drawn.prompt_ids, drawn.completion_ids, drawn.scorer_logps, strict=True):
        row = torch.tensor([[*prompt, *answer]])
        scored = learner.policy(row, torch.arange(row.shape[1])[None] >= len(prompt)).logp[0]
        assert (scored - said).abs().max() < 1e-4


def test_the_sum_of_weights_is_what_peft_would_merge(job):
    model, _ = opened(job, rank=3, alpha=24)
    ours = {name: value.clone() for name, value in merged(model.named_parameters(), LoRA(3, 24))}
    theirs = dict(lora.merge(model).named_parameters())
    assert ours.keys() == theirs.keys()
    assert all(torch.allclose(ours[name], theirs[name], atol=1e-6) for name in ours)


def test_the_reference_is_the_model_without_its_adapter_and_holds_no_second_copy(job):
    model, _ = load_model(job.model)
    add_adapter(model, LoRA(4), job.model, seed=0)
    policy = Policy(model)
    reference = sharing_copy(policy)
    for name, weight in own_parameters(policy).items():
        torch.nn.init.normal_(weight)
    moved = policy(IDS, COMPLETION).logp
    model.disable_adapters()
    assert torch.equal(reference(IDS, COMPLETION).logp, policy(IDS, COMPLETION).logp)
    model.enable_adapters()
    theirs = dict(reference.named_parameters())
    shared = {name for name, weight in policy.named_parameters() if weight is theirs[name]}
    assert shared == theirs.keys() - own_parameters(policy).keys()
    reference.load_state_dict(policy.state_dict())  # what `refresh_reference` does
    assert torch.equal(reference(IDS, COMPLETION).logp, moved)


def gradients(model) -> dict[str, torch.Tensor]:
    """Of the loss in each trained weight, by its name without PEFT's additions."""
    (-Policy(model)(IDS, COMPLETION).logp.sum()).backward()
    return {name.replace(".default", ""): p.grad for name, p in own_parameters(model).items()}


@pytest.mark.parametrize(("rank", "low", "high"), [(1, 0.05, 0.5), (32, 0.6, 0.85), (2_048, 0.97, 1.0)])
def test_the_first_update_follows_full_fine_tuning_the_closer_the_higher_the_rank(job, rank, low, high):
    """B's gradient is that of the weights, times A, so that a step moves them by G AᵀA: with random A
    of variance v the mean is r v G, and the cosine with G about 1/sqrt(1 + width/r)."""
    full = gradients(load_model(job.model)[0])
    model, _ = load_model(job.model)
    add_adapter(model, LoRA(rank, alpha=rank, targets=("q_proj",)), job.model, seed=0)
    found = gradients(model)
    weights = dict(model.named_parameters())
    for name in (name for name in full if "q_proj.weight" in name):
        layer = name.removesuffix(".weight")
        down = weights[f"{layer}.lora_A.default.weight"].detach()
        expected = full[name] @ down.T
        assert (found[f"{layer}.lora_B.weight"] - expected).abs().max() < 1e-4 * expected.abs().max()
        moved = expected @ down
        assert low < torch.cosine_similarity(moved.flatten(), full[name].flatten(), 0) <= high


def test_fine_tuning_writes_an_adapter_and_goes_on_to_the_same_bits(job, tmp_path):
    rows = [{"prompt": f"make {n} from {n},1", "completion": f"<answer> {n} </answer>"} for n in range(2, 9)]
    data = tmp_path / "data.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = SFTConfig(steps=4, tokens_per_step=64, lora=LoRA(2), checkpoint_every=1)
    states = []
    for name, stops in (("whole", ()), ("parts", (1, 2))):
        own, stop = Run(tmp_path / name), StopRequest()
        own.prepare(config)
        for _ in stops:
            stop.set()
            assert not fine_tune(World(), stop, own, config, job.model, data)
        assert fine_tune(World(), StopRequest(), own, config, job.model, data)
        states.append(load_file(own.model / "adapter_model.safetensors"))
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())
    assert any(value.abs().sum() > 0 for name, value in states[0].items() if "lora_B" in name)
    model, _ = load_model(own.folder)  # and the next run starts from it, with an adapter of its own
    add_adapter(model, LoRA(2), own.folder, seed=0)
    assert model.peft_config["default"].base_model_name_or_path == str(own.model)


@pytest.mark.parametrize(("settings", "words"), [
    ({"rank": 0}, "rank 0, alpha 16 and 1 targets changes nothing"),
    ({"alpha": 0.0}, "alpha above 0"),
    ({"targets": ()}, "0 targets"),
])  # fmt: skip
def test_an_adapter_that_changes_nothing_is_refused(settings, words):
    with pytest.raises(InputError, match=words):
        GRPOConfig(lora=LoRA(**settings))


def test_without_peft_one_sentence_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr(lora, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"pip install 'r1lab\[lora\]'"):
        GRPOConfig(lora=LoRA(8))


@pytest.mark.parametrize("target", ["qkv_proj", "lm_head", "embed_tokens", "proj", "layers"])
def test_targets_that_match_no_linear_layer_are_refused_before_the_run(job, target, tmp_path, monkeypatch):
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "1")
    config = replace(CONFIG, lora=LoRA(2, targets=("q_proj", target)), processes=1)
    with pytest.raises(InputError, match=f"'{target}' is the end of no .* choose of down_proj, gate_proj"):
        grpo(job.model, job.task, config, "run", runs=tmp_path)
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["config.json"]


@pytest.mark.parametrize(("change", "words"), [
    (lambda config: config | {"base_model_name_or_path": "data/base"}, "does not fit data/base"),
    (lambda config: config | {"base_model_name_or_path": "data/none"}, "data/none: no model there"),
    (lambda config: config | {"base_model_name_or_path": None}, "does not name the adapter's base"),
    (lambda config: config | {"target_modules": ["q_proj", "k_proj", "v_proj", "down_proj"]}, "other layers"),
    (lambda config: config | {"target_modules": ["q_proj"]}, "other layers"),
])  # fmt: skip
def test_an_adapter_of_another_model_is_refused(run, tmp_path, change, words):
    folder = shutil.copytree(run.model, tmp_path / "adapter")
    file = folder / "adapter_config.json"
    file.write_text(json.dumps(change(json.loads(file.read_text()))))
    with pytest.raises(InputError, match=words):
        load_model(folder)


@pytest.mark.parametrize(("words", "expected"), [
    ("", None),
    ("--lora 4", LoRA(4)),
    ("--lora 4 32", LoRA(4, 32)),
    ("--lora 4 0.5 q_proj v_proj", LoRA(4, 0.5, ("q_proj", "v_proj"))),
])  # fmt: skip
def test_the_command_line_takes_rank_alpha_and_layers(words, expected):
    def command(lora: MaybeLoRA = None) -> LoRA | None:
        return lora

    assert tyro.cli(command, args=words.split()) == expected
