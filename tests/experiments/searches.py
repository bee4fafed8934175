"""The experiments on the paper's two failed paths: `python -m tests.experiments --only search`.

Per seed: a PRM is trained, best-of-16 is reranked with it, policies are trained on it, and tree
searches run against best-of-n at equal tokens. Notebook 10 prints what is stored.
"""

import json
import math
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from statistics import fmean

import numpy as np

from process_rewards import (
    AGGREGATES,
    PRMConfig,
    ProcessRewardModel,
    find_steps,
    step_labels,
    train_prm,
)
from r1lab.errors import InputError
from r1lab.evaluation.measure import Evaluation, evaluate
from r1lab.files import write_text
from r1lab.models.policy import Policy, load_policy
from r1lab.rewards import accuracy, correct, format
from r1lab.sampling import SamplingParams, TorchSampler
from r1lab.sources.templates import apply_template
from r1lab.stages.rl_stages import RLStage
from r1lab.task import Problem, Reward, Task
from r1lab.training.distributed import World
from r1lab.training.loop import Learner
from r1lab.machine import commit, machine
from r1lab.training.processes import Progress
from r1lab.training.rollout import Experience
from tests.experiments.settings import ZERO, Settings, rl_stage
from tree_search import (
    Search,
    Tree,
    best_of_n,
    held_out_puzzles,
    learned_values,
    mcts,
    signs_tree,
    value_error,
)

LEVELS = (2, 3, 4, 5)
ATTEMPTS = (1, 2, 4, 8, 16, 32)  # budgets: the tokens of so many whole attempts
AT = 8  # the budget at which leads are judged
RL = {
    **ZERO, "mixture": {"signs/2": 1.0, "signs/3": 1.0}, "lang_weights": {"en": 1.0},
    "questions": 12, "group_size": 12, "minibatches": 2, "learning_rate": 3e-4, "warmup_steps": 2,
    "caps": [[0, 112]], "reference_every": 100,
}  # fmt: skip


@dataclass(frozen=True)
class SearchConfig:
    """How large the experiments are.

    Attributes:
        zero: the policy whose chain of thought is set beside the searches.
        seeds: each trains a PRM and all policies anew.
        problems: held-out puzzles per level.
        draws: best-of-n and rollouts are drawn so often for each puzzle, and averaged.
        rollouts: of each policy's training.
    """

    base: str = "data/base"
    zero: str = "data/zero"
    seeds: int = 3
    problems: int = 100
    draws: int = 10
    rollouts: int = 24
    prm: PRMConfig = field(default_factory=lambda: PRMConfig(problems=6000))


def searches(
    tree: Tree, values: Sequence[float], draws: int
) -> dict[str, Callable[[int], list[Search]]]:
    """The ways to search a tree, by name: budget -> what was found, once for each draw."""
    best, nothing = tree.values(best=True), [0.0] * len(tree.names)

    def drawn(search: Callable[[random.Random], Search]) -> list[Search]:
        return [search(random.Random(draw)) for draw in range(draws)]

    return {
        "best-of-n": lambda budget: drawn(lambda rng: best_of_n(tree, budget, rng)),
        "MCTS, learned value": lambda budget: [mcts(tree, values, budget, readers=2)],
        "MCTS, value read for free": lambda budget: [mcts(tree, values, budget)],
        "MCTS, rollouts": lambda budget: drawn(lambda rng: mcts(tree, None, budget, rng=rng)),
        "MCTS, no value": lambda budget: [mcts(tree, nothing, budget)],
        "MCTS, exact value": lambda budget: [mcts(tree, best, budget, readers=2)],
    }


def chain_tokens(
    chooser: TorchSampler, problems: Sequence[Problem], seed: int, answers: int = 4
) -> list[float]:
    """Tokens of a policy's own answers until one of their attempts is right; infinite if none is.

    Up to `answers` answers, one after the other: the search that reinforcement learning has put
    into the chain of thought. All it writes counts: verdicts, reflective words, wrong answers.
    """
    prompts = [apply_template("small", problem.prompt) for problem in problems]
    params = SamplingParams(n=answers, max_tokens=448, seed=seed)
    drawn = chooser.generate([chooser.tokenizer(prompt).input_ids for prompt in prompts], params)
    texts, found = drawn.texts(chooser.tokenizer), []
    for row, problem in enumerate(problems):
        spent, at = 0, math.inf
        for i in range(row * answers, (row + 1) * answers):
            text, ids = texts[i], drawn.completion_ids[i]
            whole = (s for s in find_steps(text) if len(s.signs) == problem.level)
            hits = (s.end for s in whole if step_labels(problem, [s])[0])
            if at == math.inf and (end := next(hits, None)) is not None:
                at = spent + len(chooser.tokenizer(text[:end]).input_ids)
            spent += len(ids)
        found.append(at)
    return found


def search_level(
    policy: Policy, tokenizer, prm: ProcessRewardModel, chooser: TorchSampler,
    problems: Sequence[Problem], draws: int, seed: int,
) -> dict:  # fmt: skip
    """Shares of solved puzzles of one level by search and budget, and the PRM's error by depth."""
    trees = [signs_tree(policy, tokenizer, problem) for problem in problems]
    said = [learned_values(prm, *pair) for pair in zip(problems, trees, strict=True)]
    level = problems[0].level
    attempt = fmean(level * sum(tree.cost) / (len(tree.names) - 1) for tree in trees)
    ways = [searches(tree, own, draws) for tree, own in zip(trees, said, strict=True)]
    solved = {}
    with Progress(len(ways[0]), f"searches among {2**level} leaves") as progress:
        for done, name in enumerate(ways[0], 1):
            solved[name] = [
                [fmean(s.found_at is not None for s in way[name](round(k * attempt))) for way in ways]
                for k in ATTEMPTS
            ]
            progress.show(done)
    chain = chain_tokens(chooser, problems, seed)
    solved["R1-Zero's own chain"] = [[float(at <= k * attempt) for at in chain] for k in ATTEMPTS]
    return {
        "attempt_tokens": round(attempt, 1),
        "policy_hits": fmean(tree.values(best=False)[0] for tree in trees),
        "solved": {name: [fmean(row) for row in rows] for name, rows in solved.items()},
        "per_problem": {name: rows[ATTEMPTS.index(AT)] for name, rows in solved.items()},
        "value": [value_error(trees, said, depth) for depth in range(1, level + 1)],
    }


def rerank(
    evaluation: Evaluation, problems: Sequence[Problem], prm: ProcessRewardModel
) -> dict[str, list[float]]:
    """Per problem: is the completion right that each way of choosing among k would choose?"""
    prompts = [apply_template("small", problem.prompt) for problem in problems]
    chosen = dict(zip(("one", "_", "vote", "rule"), evaluation.accuracies().values(), strict=True))
    found = {name: values.tolist() for name, values in chosen.items() if name != "_"}
    for how, aggregate in AGGREGATES.items():
        found[f"prm {how}"] = []
        for row, (prompt, own) in enumerate(zip(prompts, evaluation.completions, strict=True)):
            scores = [aggregate(steps) for steps in prm.scores([(prompt, text) for text in own])]
            top = [right for right, score in zip(evaluation["correct"][row], scores, strict=True)
                   if score == max(scores)]  # fmt: skip
            found[f"prm {how}"].append(float(np.mean(top)))
    return found


def paid_by(reward: str, prm: ProcessRewardModel) -> dict[str, tuple[Reward, float]]:
    """The rule ("rule") or the PRM with an aggregate; the other one is logged, and paid nothing.

    A little format reward is in both, as in R1-Zero.
    """
    rule = reward == "rule"
    return {
        "accuracy": (accuracy, float(rule)),
        "process": (prm.reward("sum" if rule else reward), float(not rule)),
        "format": (format, 0.1),
    }


def train_on(
    reward: str, prm: ProcessRewardModel, model: str, stage: RLStage, test: list[Problem]
) -> tuple[Learner, list[dict]]:
    """Train a policy, and note of every rollout what was paid and what was right (leniently).

    Args:
        reward: "rule", or how the PRM's scores become a reward (see `AGGREGATES`).
        test: is never asked.
    """
    config, rows = stage.rl, []
    asked = partial(stage.world.draw, frozenset(problem.id for problem in test))
    task = Task("puzzles of signs", asked, test, paid_by(reward, prm), template="small")
    policy, tokenizer = load_policy(model)
    learner = Learner(config, task, policy, tokenizer, World())

    def note(rollout: int, experience: Experience, updates: list[dict]) -> bool:
        right = [
            correct(text, p.solution, p.family, p.meta, lenient=True)
            for p, text in zip(experience.problems, experience.completions, strict=True)
        ]
        numbers = experience.statistics()
        shown = {name: numbers[name] for name in ("reward/process", "tokens_mean", "truncated")}
        rows.append({"step": learner.step, "right": fmean(right), **shown})
        progress.show(rollout + 1, right=f"{rows[-1]['right']:.0%}")
        return False

    with Progress(config.rollouts, f"paid by {reward}") as progress:
        learner.train(note)
    return learner, rows


def run_seed(
    config: SearchConfig, seed: int, levels: Sequence[int] = LEVELS,
    rewards: Sequence[str] = ("rule", *AGGREGATES),
) -> dict:  # fmt: skip
    """All experiments of one seed; or at fewer `levels`, 2 and 3 among them, paid by fewer `rewards`."""
    policy, tokenizer = load_policy(config.base)
    sampler = TorchSampler(policy.model, tokenizer)
    zero = TorchSampler(load_policy(config.zero)[0].model, tokenizer)
    prm, losses = train_prm(policy.model, tokenizer, replace(config.prm, seed=seed))
    puzzles = {level: held_out_puzzles(level, config.problems) for level in levels}
    everything = [problem for own in puzzles.values() for problem in own]
    searched = {
        str(level): search_level(policy, tokenizer, prm, zero, own, config.draws, seed)
        for level, own in puzzles.items()
    }
    sampled = evaluate(sampler, tokenizer, everything, k=16, max_tokens=160, seed=seed)
    easy, arms = puzzles[2] + puzzles[3], {}
    stage = rl_stage({**RL, "rollouts": config.rollouts, "seed": seed})
    cap = stage.rl.cap(0)
    for reward in rewards:
        learner, rows = train_on(reward, prm, config.base, stage, easy)
        final = evaluate(learner.sampler, tokenizer, easy, k=8, max_tokens=cap, seed=seed)
        arms[reward] = {"rows": rows, "after": final.accuracies()["pass_at_1"].tolist()}
    base = evaluate(sampler, tokenizer, easy, k=8, max_tokens=cap, seed=seed)
    return rounded({
        "prm_loss": [losses[0], fmean(losses[-20:])],
        "levels": searched,
        "rerank": rerank(sampled, everything, prm),
        "arms": arms,
        "before": base.accuracies()["pass_at_1"].tolist(),
    })  # fmt: skip


def per_problem(run: dict, problems: int) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Each claim's effect in one seed's run: one value per puzzle, and the puzzles' levels."""
    low, high, arms = LEVELS[0], LEVELS[-1], run["arms"]

    def lead(over: str, level: int) -> np.ndarray:
        own = run["levels"][str(level)]["per_problem"]
        return np.subtract(own["MCTS, learned value"], own[over])

    found = {
        "prm-hacked": ((2, 3), np.subtract(arms["sum"]["after"], run["before"])),
        "rule-control": ((2, 3), np.subtract(arms["rule"]["after"], run["before"])),
        "prm-reranks": (LEVELS, np.subtract(run["rerank"]["prm last"], run["rerank"]["vote"])),
        # An estimate is a mean over levels: twice each makes it the difference of the two.
        "mcts-lead-shrinks": (
            (low, high), np.concatenate([-2 * lead("best-of-n", low), 2 * lead("best-of-n", high)])
        ),
        "value-costs": (
            LEVELS, np.concatenate([lead("MCTS, no value", level) for level in LEVELS])
        ),
    }  # fmt: skip
    return {name: (values, np.repeat(levels, problems)) for name, (levels, values) in found.items()}


def settings_of(config: SearchConfig) -> Settings:
    """All that decides how a seed goes."""
    return {name: own for name, own in asdict(config).items() if name != "seeds"}


def run_searches(config: SearchConfig, out: Path, key: str) -> None:
    """Run the seeds that `out` does not hold yet; it is written after each.

    Args:
        key: what the result depends on. From the first seed on that was run under another one, all
            are run again: the file never holds runs of two keys.

    Raises InputError where `out` holds runs with other settings.
    """
    settings = settings_of(config)
    stored = json.loads(out.read_text("utf-8")) if out.is_file() else {"runs": []}
    if stored.get("config", settings) != settings:
        raise InputError(f"{out} holds runs with other settings; delete it, or name another file.")
    keys = [run["key"] for run in stored["runs"]]
    runs = stored["runs"][: next((seed for seed, own in enumerate(keys) if own != key), len(keys))]
    for seed in range(len(runs), config.seeds):
        started = time.monotonic()
        run = run_seed(config, seed) | {"key": key, "commit": commit()}
        runs.append(run | {"wall_seconds": round(time.monotonic() - started, 1)})
        result = {"machine": machine(), "config": settings, "runs": runs}
        write_text(out, json.dumps(result, ensure_ascii=False) + "\n")
        print(f"{out}: {seed + 1} of {config.seeds} seeds", flush=True)


def rounded(value: object) -> object:
    """Four digits of every float, which keeps the file small."""
    if isinstance(value, dict):
        return {name: rounded(own) for name, own in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(own) for own in value]
    return round(value, 4) if isinstance(value, float) else value
