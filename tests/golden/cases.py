"""The cases of the golden record: small runs of everything that learns, and what comes out.

All that the record knows of the package's interface stands here. A case takes an empty folder and
returns what JSON can hold: metrics without times, and hashes of what is too long to print. When an
interface changes, the case is rewritten and its record stays.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterable
from dataclasses import asdict, fields, replace
from functools import partial
from itertools import islice
from pathlib import Path
from unittest.mock import patch

import numpy as np
from datasets import Dataset, load_from_disk
from safetensors.torch import load_file
from torch import Tensor

from process_rewards import PRMConfig, train_prm
from r1lab.evaluation.measure import MEASURES, Evaluation
from r1lab.files import read_rows
from r1lab.objective import LossConfig
from r1lab.models.policy import load_policy
from r1lab.sampling import SamplingParams, TorchSampler
from r1lab.stages import benchmarks
from r1lab.stages.benchmarks import measure_work
from r1lab.stages.hacking import HACKING, PAYERS, run_hacking
from r1lab.stages.pipeline import MEASURED, Chain, R1Config
from r1lab.stages.preferences import PreferenceConfig, train_reward_models
from r1lab.stages.rl_stages import REASONING, SCENARIOS, RLStage
from r1lab.stages.sft_stages import ColdStart, Distill, Rejection, SampledStage, student_rl_stage
from r1lab.sources.templates import apply_template, prompt_of
from r1lab.task import Problem, Task, load_problems, save_problems
from r1lab.training.config import GRPOConfig
from r1lab.training.distributed import Parallel, World
from r1lab.training.processes import StopRequest
from r1lab.training.recorder import first_of_each_level
from r1lab.training.rl import grpo
from r1lab.run import Run
from r1lab.training.sft import SFTConfig, sft
from r1lab.world import FAMILIES, training_problems
from r1lab.world.corpus import documents, written_examples
from r1lab.world.bases import PRETRAIN_PRESETS, run_pretrain
from r1lab.world.skills import measure_skills
from r1lab.world.small_world import SmallWorld
from r1lab.training.loop import Learner
from tests.experiments.lagged import LaggedLearner
from tests.experiments.ppo import PPOLearner
from tests.small_run import stored_tensors
from tests.tools.testsets import TESTED, french_test_set, make_test_set
from tree_search import held_out_puzzles
from wordings import NAMES, asking, in_french
from wordings import few_shot as few_shot_prompt

Case = Callable[[Path], dict]
CASES: dict[str, Case] = {}
QUICK: list[str] = []  # the part that `make test` replays
CLOCKS = {"elapsed", "seconds"}
# Two rollouts of two updates, with steps so long that ratios are clipped in the second one.
SHORT = {
    "rollouts": 2, "questions": 8, "group_size": 8, "minibatches": 2, "learning_rate": 5e-4,
    "warmup_steps": 1, "caps": ((0, 64), (2, 96)), "reference_every": 2, "eval_every": 1,
    "eval_samples": 2, "eval_problems": 1, "final_samples": 2, "sample_rows": 16, "processes": 1,
}  # fmt: skip
WORLD = {one.name for one in fields(SmallWorld)}  # settings of what is asked and paid

# What differs in each arm from the configuration that all of them share.
ARMS: dict[str, dict] = {
    "true": {},
    "random": {"arm": "random"},
    "format": {"arm": "format"},
    "tiny": {"model": "data/tiny"},
    "noskill": {"model": "data/noskill"},
    "grpo": {},
    "ppo-0.95": {"learner": partial(PPOLearner, gae_lambda=0.95)},
    "ppo-1.0": {"learner": partial(PPOLearner, gae_lambda=1.0)},
    "per-answer": {"loss": LossConfig(aggregation="sequence")},
    "no-std": {"divide_by_std": False},
    "equal-clip": {"loss": LossConfig(clip_low=0.2, clip_high=0.2)},
}


def case(name: str, quick: bool = False) -> Callable[[Case], Case]:
    """Put a function among the cases, under this name."""

    def put(function: Case) -> Case:
        CASES[name] = function
        if quick:
            QUICK.append(name)
        return function

    return put


# What comes out of a run


def digest(value: object) -> str:
    """A hash of what JSON can hold."""
    text = json.dumps(value, ensure_ascii=False, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def weights_hash(tensors: Iterable[tuple[str, Tensor]]) -> str:
    """A hash of named tensors in their order, as float32."""
    found = hashlib.sha256()
    for _, tensor in tensors:
        found.update(tensor.detach().float().contiguous().numpy().tobytes())
    return found.hexdigest()


def array_hash(values: np.ndarray) -> str:
    """A hash of an array's numbers as float64."""
    return hashlib.sha256(np.asarray(values, dtype=float).tobytes()).hexdigest()


def arrays(named: dict[str, np.ndarray]) -> dict[str, list]:
    """Of each array its length, the mean of what is a number, and the hash of it all."""
    return {
        name: [len(values), float(np.nanmean(values)), array_hash(values)]
        for name, values in sorted(named.items())
    }


def without_times(rows: list[dict]) -> list[dict]:
    return [{name: value for name, value in row.items() if name not in CLOCKS} for row in rows]


def learned(run: Run) -> dict:
    """Of a run that trained: metrics of every update or rollout, and the weights after it."""
    found = {
        "metrics": without_times(run.metrics),
        "weights": weights_hash(load_policy(run.model)[0].named_parameters()),
    }
    stored = stored_tensors(run.model)
    critic = {name: value for name, value in stored.items() if name.startswith("critic.")}
    if critic:
        found["critic"] = weights_hash(sorted(critic.items()))
    return found


def evaluated(result: Evaluation) -> dict:
    """Of an evaluation: all completions, and each measure of each of them."""
    return {
        "completions": digest(result.completions),
        "measures": {name: array_hash(result[name]) for name in MEASURES},
    }


def reinforced(run: Run) -> dict:
    """Of a run of reinforcement learning: also the base's evaluation and the stored samples."""
    names = ("id", "completion", "rewards", "advantage", "finish")
    return {
        **learned(run),
        "base": evaluated(Evaluation.load(run.folder / "eval_base.npz")),
        "samples": digest([[row[name] for name in names] for row in run.samples]),
        "flops": run.summary["flops"],
    }


def taught(run: Run) -> dict:
    """Of a stage that samples one model and teaches another: its data set, and what was learned."""
    about = json.loads((run.folder / "data/provenance.json").read_text())
    return {
        **learned(run),
        "data": digest(load_from_disk(str(run.folder / "data")).to_list()),
        "counts": {name: about[name] for name in ("sampled", "kept", "tokens", "filters")},
        "examples": about["examples"],
    }


# How a run is made small


def alone() -> None:
    """Train in this process, as torchrun would with one, and not in a new one."""
    os.environ.update(RANK="0", WORLD_SIZE="1")


def on_two_cores() -> None:
    """Two workers with one thread each, however many cores there are."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:2])


def few_problems(name: str, of_each_level: int) -> list[Problem]:
    """The first held-out problems of each level of a family."""
    return first_of_each_level(load_problems(f"data/test_{name}.jsonl"), of_each_level)


def train(folder: Path, stop_after: int | None = None, **changes) -> Run:
    """Two rollouts of `make zero` with changes, evaluated on ten problems.

    Among the changes are `model` and `learner`, and settings of the world and of the policy.
    """
    file = folder / "test.jsonl"
    save_problems(few_problems("signs", 2), file)
    model, learner = changes.pop("model", "data/base"), changes.pop("learner", Learner)
    world = SmallWorld(test=str(file), **{n: v for n, v in changes.items() if n in WORLD})
    rl = {name: value for name, value in changes.items() if name not in WORLD}
    config = GRPOConfig.preset("cpu", **(SHORT | rl))
    return grpo(
        model, world.task(), config, "run", runs=folder, stop_after=stop_after, learner=learner
    )


def short(stage: RLStage, folder: Path, **changes) -> RLStage:
    """A stage of reinforcement learning in two rollouts, evaluated on ten problems."""
    file = folder / "test.jsonl"
    save_problems(few_problems("signs", 2), file)
    return stage.with_rl(**(SHORT | changes)).with_world(test=str(file))


def train_alone(folder: Path, **changes) -> dict:
    """The same, in this process."""
    alone()
    return reinforced(train(folder, **changes))


# Arms of the ledger


for _name, _changes in ARMS.items():
    case(f"arm-{_name}", quick=_name in ("true", "ppo-0.95"))(partial(train_alone, **_changes))


# Settings of the loop


GRADED = {
    "mixture": {"signs/1": 1.0, "programs/1": 1.0, "logic/1": 1.0}, "grading_rows": 5,
    "language_weight": 0.2,
}  # fmt: skip
case("lag", quick=True)(partial(train_alone, learner=partial(LaggedLearner, lag=1)))
case("packing", quick=True)(partial(train_alone, pack=True, microbatch_tokens=256))
case("grading-in-line")(partial(train_alone, **GRADED))
case("grading-asynchronous", quick=True)(partial(train_alone, grading="asynchronous", **GRADED))


@case("resume")
def resume(folder: Path) -> dict:
    """Stopped after one rollout, and gone on with."""
    alone()
    train(folder, stop_after=1)
    return reinforced(train(folder))


def two_processes(folder: Path, shard: bool) -> dict:
    on_two_cores()
    return reinforced(train(folder, processes=2, parallel=Parallel(shard=shard)))


case("two-processes", quick=True)(partial(two_processes, shard=False))
case("two-processes-sharded")(partial(two_processes, shard=True))  # FSDP2, over gloo


# make zero


def stored_zero() -> list[dict]:
    return without_times(Run("data/runs/zero").metrics)


def zero(folder: Path, stop_after: int | None = None) -> Run:
    """make zero, as a person gets it, or its first rollouts."""
    on_two_cores()
    config = GRPOConfig.preset("cpu", processes=2)
    return grpo("data/base", SmallWorld().task(), config, "zero", runs=folder, stop_after=stop_after)


@case("zero-begins")
def zero_begins(folder: Path) -> dict:
    """The first two rollouts of make zero. Are they as in data/runs/zero?"""
    run = zero(folder, stop_after=2)
    rows = without_times(run.metrics)
    stored = stored_zero()[: len(rows)]
    same = [old.items() <= new.items() for old, new in zip(stored, rows, strict=True)]
    return {"as stored": same, **learned(run)}


def whole_zero(folder: Path) -> list[dict]:
    """All rows of make zero."""
    return without_times(zero(folder).metrics)


# Learning from documents


def written_data(folder: Path) -> Path:
    """A small data set: written replies to chat and unsafe requests."""
    rows = [
        {"prompt": problem.prompt, "completion": text} for problem, text in islice(written_examples(0), 240)
    ]
    Dataset.from_list(rows).save_to_disk(folder / "rows")
    return folder / "rows"


TEN_STEPS = SFTConfig(steps=10, tokens_per_step=512, warmup_steps=2, microbatch_tokens=256)


def fine_tuning(changes: dict, folder: Path) -> dict:
    alone()
    config = replace(TEN_STEPS, **changes)
    return learned(sft("data/base", written_data(folder), config, "run", runs=folder))


case("sft", quick=True)(partial(fine_tuning, {}))
case("sft-packed")(partial(fine_tuning, {"pack": True}))


@case("sft-two-processes")
def sft_two_processes(folder: Path) -> dict:
    on_two_cores()
    config = replace(TEN_STEPS, processes=2)
    return learned(sft("data/base", written_data(folder), config, "run", runs=folder))


def pretraining(preset: str, folder: Path) -> dict:
    """Ten steps from scratch, five on each corpus."""
    alone()
    base = PRETRAIN_PRESETS[preset]
    (_, early), (_, late) = base.corpora
    config = replace(base, steps=10, tokens_per_step=2048, corpora=((0, early), (5, late)))
    run_pretrain(config, "run", folder / "model", runs=folder)
    found = weights_hash(load_policy(folder / "model")[0].named_parameters())
    trained = weights_hash(load_policy(Run(folder / "run").model)[0].named_parameters())
    return {"weights": trained, "stored": found}


case("pretrain-tiny")(partial(pretraining, "tiny"))
case("pretrain-llama")(partial(pretraining, "llama"))
case("pretrain-noskill")(partial(pretraining, "noskill"))

JUDGES = PreferenceConfig(samples=8, examples=96, max_tokens=32, epochs=1, writers=("data/base", "data/zero"))


def judges(folder: Path) -> Path:
    """Both reward models."""
    return train_reward_models(JUDGES, folder / "reward_models")


@case("reward-models")
def reward_models(folder: Path) -> dict:
    alone()
    found = {}
    for place in sorted(path.parent for path in judges(folder).glob("*/summary.json")):
        summary = json.loads((place / "summary.json").read_text())
        found[place.name] = {
            "held_out_accuracy": summary["held_out_accuracy"],
            "weights": weights_hash(sorted(load_file(place / "model.safetensors").items())),
        }
    return found


# The stages of the chain, each from a shipped model


def few_samples(stage: SampledStage) -> SampledStage:
    """The stage with one chunk of 24 questions and six updates."""
    sft = replace(stage.sft, steps=6, tokens_per_step=1024, warmup_steps=2)
    stage = stage.with_sampling(chunks=1, questions=24, max_tokens=128)
    return replace(stage, sft=sft, processes=1)


def sampled(stage: SampledStage, folder: Path) -> dict:
    alone()
    return taught(few_samples(stage).run("run", folder))


COLD_START = ColdStart(source="data/zero", base="data/base")
REJECTION = Rejection(source="data/r1", base="data/base")
case("dev1")(partial(sampled, COLD_START))
case("dev3", quick=True)(partial(sampled, REJECTION))
case("dev3-random")(partial(sampled, REJECTION.with_sampling(select="random")))
case("student-sft")(partial(sampled, Distill(source="data/r1", base="data/small")))


def stage_alone(stage: RLStage, model: str, folder: Path) -> dict:
    alone()
    return reinforced(stage.run(model, "run", folder))


@case("dev2")
def dev2(folder: Path) -> dict:
    return stage_alone(short(REASONING, folder), "data/zero", folder)


@case("dev2-no-language")
def dev2_no_language(folder: Path) -> dict:
    stage = short(REASONING, folder).with_world(language_weight=0.0)
    return stage_alone(stage, "data/zero", folder)


@case("r1")
def r1(folder: Path) -> dict:
    """RL for all scenarios: reward models count from the second rollout on."""
    alone()
    stage = short(SCENARIOS, folder).with_world(
        reward_models=str(judges(folder)), late_from=1,
        late_mixture={"chat/1": 20.0, "unsafe/1": 30.0},
    )  # fmt: skip
    return stage_alone(stage, "data/r1", folder)


@case("student-rl")
def student_rl(folder: Path) -> dict:
    """RL on the student until it has spent what distilling took."""
    sampling = {"mixture": {"signs/1": 1.0, "sums/1": 1.0}, "lang_weights": {"en": 1.0}}
    distilled = {"flops": 7_000_000_000, "data": {"settings": {"sampling": sampling}}}
    stage = student_rl_stage(distilled, "data/small", short(RLStage(), folder))
    return {"rollouts": stage.rl.rollouts, **stage_alone(stage, "data/small", folder)}


@case("hacking")
def hacking(folder: Path) -> dict:
    alone()
    stage = HACKING.with_world(reward_models=str(judges(folder))).with_rl(
        rollouts=3, questions=4, group_size=6, caps=((0, 48),), eval_every=2, eval_samples=1,
        eval_problems=2,
    )  # fmt: skip
    summary = run_hacking(stage, "data/zero", folder / "run")
    return {"summary": summary} | {who: read_rows(folder / f"run/{who}.jsonl") for who in PAYERS}


# Measuring


def small_benchmarks() -> None:
    """The columns of this process ask two problems of each level, each of them once."""
    sets = {name: few_problems(name, 2) for name in benchmarks.SETS}
    patch.object(benchmarks, "test_sets", lambda: sets).start()
    patch.object(benchmarks, "LEAST_COMPLETIONS", 8).start()


@case("benchmarks")
def benchmark_column(folder: Path) -> dict:
    """The column of R1 in the table of stages, over a few problems."""
    alone()
    small_benchmarks()
    measure_work(World(), StopRequest(), Run(folder), Path("data/r1"), 2, 0, None)
    with np.load(folder / "values.npz") as values:
        found = arrays(dict(values))
    return {"cells": json.loads((folder / "benchmarks.json").read_text()), "values": found}


@case("skills")
def skills(folder: Path) -> dict:
    """Skills and habits of a base that has them, and of one that judges badly."""
    found = {}
    for model in ("data/base", "data/noskill"):
        policy, tokenizer = load_policy(model)
        sampler = TorchSampler(policy.model, tokenizer)
        for family in ("signs", "countdown", "sums"):
            problems = few_problems(family, 3)
            found[f"{model}/{family}"] = asdict(measure_skills(sampler, tokenizer, problems, k=2))
    return found


@case("sampler", quick=True)
def sampler(folder: Path) -> dict:
    """Token ids and log-probs by every way to sample."""
    policy, tokenizer = load_policy("data/zero")
    drawing = TorchSampler(policy.model, tokenizer)
    prompts = [
        tokenizer(apply_template("small", problem.prompt)).input_ids for problem in few_problems("signs", 2)
    ]
    ways = {
        "plain": {}, "greedy": {"temperature": 0.0}, "top-p": {"temperature": 0.6, "top_p": 0.95},
        "top-k": {"top_k": 4, "seed": 7},
    }  # fmt: skip
    found = {}
    for name, settings in ways.items():
        drawn = drawing.generate(prompts, SamplingParams(n=2, max_tokens=96, **settings))
        logps = [values.tolist() for values in drawn.logprobs]
        found[name] = {
            "tokens": sum(map(len, drawn.completion_ids)),
            "hash": digest([drawn.completion_ids, drawn.finish, logps]),
        }
    return found


# What is asked and written


@case("problems", quick=True)
def problems(folder: Path) -> dict:
    """Training problems of every family and level in every language, and the held-out sets."""
    found = {}
    for name, family in FAMILIES.items():
        for level in family.levels:
            kind, langs = f"{name}/{level}", {"en": 1.0, "zh": 1.0, "fr": 1.0}
            drawn = training_problems(0, level, 12, {kind: 1.0}, langs)
            found[kind] = digest([asdict(problem) for problem in drawn])
    for family in TESTED:
        found[f"test {family}"] = digest([asdict(problem) for problem in make_test_set(family)])
    found["test french"] = digest([asdict(problem) for problem in french_test_set()])
    stages = (RLStage(), REASONING, SCENARIOS, HACKING)
    mixed = [stage.world.draw(frozenset(), 0, 3, stage.rl.questions) for stage in stages]
    found["rollouts"] = digest([[asdict(problem) for problem in drawn] for drawn in mixed])
    return found


@case("corpus", quick=True)
def corpus(folder: Path) -> dict:
    """Documents of every corpus, written examples, translations, and prompts in other words."""
    found = {}
    for name, preset in PRETRAIN_PRESETS.items():
        for start, shares in preset.corpora:
            found[f"{name} from {start}"] = digest(list(islice(documents(shares, "0"), 200)))
    written = list(islice(written_examples(3), 100))
    found["written"] = digest([[asdict(problem), text] for problem, text in written])
    puzzles = few_problems("signs", 1) + few_problems("sums", 1)
    for name in NAMES:
        task = Task(name, (), puzzles, {}, template=asking(name))
        found.setdefault("wordings", {})[name] = digest([prompt_of(task, one) for one in puzzles])
    found["few-shot"] = digest([few_shot_prompt(2)(one) for one in puzzles])
    thought = "<think> 9 -5 =4 no wait 9 +5 =14 ok </think> <answer> 9+5 </answer>"
    found["french"] = digest([[asdict(one), text] for one, text in (in_french(p, thought) for p in puzzles)])
    return found


# Search


def process_model() -> tuple:
    policy, tokenizer = load_policy("data/base")
    return policy, tokenizer, *train_prm(policy.model, tokenizer, PRMConfig(problems=240))


@case("prm")
def prm(folder: Path) -> dict:
    _, _, model, losses = process_model()
    return {"losses": losses, "weights": weights_hash(model.named_parameters())}


@case("mcts")
def tree_search(folder: Path) -> dict:
    """Every search of one level, with its learned values."""
    from tests.experiments.searches import search_level

    policy, tokenizer, model, _ = process_model()
    chain = TorchSampler(load_policy("data/zero")[0].model, tokenizer)
    return search_level(policy, tokenizer, model, chain, held_out_puzzles(4, 6), draws=3, seed=0)


@case("searches")
def searches(folder: Path) -> dict:
    """The experiment of the two failed paths, paid by the rule and by the PRM's sum."""
    from tests.experiments.searches import SearchConfig, run_seed

    config = SearchConfig(problems=4, draws=2, rollouts=2, prm=PRMConfig(problems=240))
    return run_seed(config, 0, rewards=("rule", "sum"))


# The next steps of the paper. An experiment that is being rewritten leaves the other cases whole:
# each is imported where it is run.

FEW_ANSWERS = {"questions": 4, "group_size": 4, "caps": [[0, 48]]}


def chain_to_dev3(folder: Path) -> str:
    """A chain's folder with what the next steps read of it: Dev3, measured, and the model Dev2."""
    alone()
    small_benchmarks()
    run = few_samples(REJECTION).run("dev3", folder / "chain")
    measure_work(World(), StopRequest(), run, run.model, 1, 0, None)
    for stage, model in (("zero", "zero"), ("dev2", "r1"), ("r1", "r1")):
        (folder / "chain" / stage).symlink_to(Path("data", model).resolve())
    return str(folder / "chain")


def few_answers(folder: Path) -> dict:
    """What the arms of an experiment change of make zero, to be small."""
    file = folder / "test.jsonl"
    save_problems(few_problems("signs", 2), file)
    return {**SHORT, **FEW_ANSWERS, "test": str(file)}


def six_steps(experiment: dict) -> dict:
    return experiment | {"steps": 6, "tokens_per_step": 1024, "warmup_steps": 2}


def kept(values: dict[str, np.ndarray], folder: Path) -> dict:
    """Of an experiment: each arm's values, and what each arm learned."""
    runs = [Run(place.parent) for place in sorted(folder.glob("*/checkpoints"))]
    return {"values": arrays(values), "arms": {run.name: learned(run) for run in runs}}


@case("few-shot")
def few_shot_examples(folder: Path) -> dict:
    from tests.experiments.few_shot import FewShot, few_shot

    config = FewShot(chain=chain_to_dev3(folder), problems=1, samples=1, processes=1)
    return kept(few_shot(config, folder / "run"), folder / "run")


@case("french")
def third_language(folder: Path) -> dict:
    from tests.experiments.more_data import SFT, French, french

    chain = chain_to_dev3(folder)
    config = French(chain=chain, sft=six_steps(SFT), samples=1, processes=1, share=0.3)
    return kept(french(config, folder / "run"), folder / "run")


@case("programs")
def more_programs(folder: Path) -> dict:
    from tests.experiments.more_data import PROGRAMS, SFT, Programs, programs

    sampling = PROGRAMS | {"chunks": 1, "questions": 24, "max_tokens": 128}
    chain = chain_to_dev3(folder)
    config = Programs(chain=chain, sft=six_steps(SFT), samples=1, processes=1, sampling=sampling)
    return kept(programs(config, folder / "run"), folder / "run")


@case("one-loss")
def both_losses(folder: Path) -> dict:
    from tests.experiments.next_steps import SFT, OneLoss, one_loss

    chain, rl = chain_to_dev3(folder), few_answers(folder)
    config = OneLoss(chain=chain, rl=rl, sft=six_steps(SFT), samples=1, processes=1)
    return kept(one_loss(config, folder / "run"), folder / "run")


def many_wordings(base: str, folder: Path) -> dict:
    from tests.experiments.next_steps import Wordings, wordings

    alone()
    rl = few_answers(folder)
    config = Wordings(base=base, rl=rl, samples=1, problems=1, processes=1)
    return kept(wordings(config, folder / "run"), folder / "run")


case("wordings")(partial(many_wordings, "data/base"))
case("wordings-llama")(partial(many_wordings, "data/llama"))


# The chain as a whole


def easy(stage: SampledStage) -> SampledStage:
    """A stage with few samples, of questions that a model can answer after two rollouts."""
    return few_samples(stage).with_sampling(mixture=EASY)


EASY = {"signs/1": 1.0, "signs/2": 1.0, "sums/1": 1.0}


@case("chain")
def chain(folder: Path) -> dict:
    """Every stage after the other with its controls, each from what the one before has left."""
    from tests.experiments.chain import chain_values

    alone()
    small_benchmarks()
    few = {"questions": 4, "group_size": 4, "caps": ((0, 48),)}
    zero, reasoning, scenarios = (
        short(stage, folder, **few).with_world(mixture=EASY) for stage in (RLStage(), REASONING, SCENARIOS)
    )
    late = {"late_from": 1, "late_mixture": {"chat/1": 3.0, "unsafe/1": 3.0}}
    config = R1Config(
        processes=1, samples=1, zero=zero, cold_start=easy(ColdStart()), reasoning=reasoning,
        rejection=easy(Rejection()), preferences=replace(JUDGES, writers=()),
        scenarios=scenarios.with_world(**late), distill=easy(Distill()), student_rl=zero,
        hacking=short(HACKING, folder, **few),
    )  # fmt: skip
    whole = Chain(config, "chain", folder)
    whole.run()
    whole.controls()
    found = {}
    for name in MEASURED:
        run = whole.stage(name)
        found[name] = {"cells": run.read("benchmarks.json")}
        if (run.folder / "data").exists():
            found[name] |= taught(run)
        elif (run.folder / "eval_base.npz").exists():
            found[name] |= reinforced(run)
    return {"stages": found, "values": arrays(chain_values(whole))}
