"""Too many steps on a reward model (v2 B.5, Fig. 6): its score rises, and the true quality falls.

The paper keeps preference rewards to the last 400 of 1,700 steps because of this. Here chat alone
is trained, far longer, and three things are followed: the reward model's score, which pays; what
the person it stands for feels (the hidden preference, which only this small world can know); and
reasoning, which is what the paper's figure shows. In the control arm that person pays.
"""

import json
from collections.abc import Callable
from itertools import combinations
from pathlib import Path

from r1lab.evaluation.measure import evaluate
from r1lab.evaluation.rows import read_rows
from r1lab.models.policy import Policy, load_model
from r1lab.rewards import RewardSet, format_reward, strict_answer
from r1lab.rewards.accuracy import text_of
from r1lab.rewards.preference import helpfulness
from r1lab.sampling import TorchSampler
from r1lab.stages.scenarios import SCENARIOS
from r1lab.task import Problem, held_out_ids, load_problems
from r1lab.world.person import hidden_preference
from r1lab.training.config import GRPOConfig
from r1lab.training.distributed import World
from r1lab.training.experience import Experience
from r1lab.training.loop import Learner, group_statistics
from r1lab.training.run import prepare_folder
from r1lab.training.runs import Progress, write_atomically

PAYERS = ("model", "human")
SHORT = SCENARIOS.steps - SCENARIOS.preference_from  # steps on reward models in R1's own stage

HACKING = GRPOConfig(
    model="data/zero",
    mixture={"chat/1": 1.0},
    rollouts=60,
    questions=12,
    group_size=12,
    caps=((0, 448),),
    eval_every=15,
    eval_samples=4,
    eval_problems=4,
    processes=1,
)


def run_hacking(config: GRPOConfig, run: Path) -> dict:
    """Both arms, in `run/model.jsonl` and `run/human.jsonl`; an arm that is there stays.

    Args:
        config: as HACKING, with the folder of reward models.
    Returns:
        `summary.json`: by payer, the scores after no, SHORT and all steps (0 to 1).
    Raises:
        InputError: there is no reward model, or the folder holds a run with other settings.
    """
    config.check(processes=1)
    helpfulness(Path(config.reward_models) / "helpfulness")  # refused before the folder is begun
    prepare_folder(run, config, resume=(run / "config.json").exists(), overwrite=False)
    summary = {}
    for payer in PAYERS:
        path = run / f"{payer}.jsonl"
        if not path.exists():
            rows = follow(config, payer)
            write_atomically(path, "".join(json.dumps(row) + "\n" for row in rows))
        summary[payer] = summarize(read_rows(path))
    write_atomically(run / "summary.json", json.dumps(summary, indent=1))
    return summary


def follow(
    config: GRPOConfig, payer: str, watch: Callable[[dict], None] = lambda row: None
) -> list[dict]:
    """Train on chat, paid by the reward model or by the human; what both think at each rollout.

    Args:
        watch: is told each row as it comes, for a live figure.
    Returns:
        Rows of kind "train" (`model`, `human`: mean scores of the samples that the policy drew
        after `step` updates; their `agreement`, `tokens`, `entropy`, and a `sample`) and "eval"
        (`reasoning`: pass@1).
    """
    model, tokenizer = load_model(config.model)
    learner = Learner(config, Policy(model), tokenizer, World())
    judge = helpfulness(Path(config.reward_models) / "helpfulness")
    weights = {name: config.preference_weight * (name == payer) for name in PAYERS}
    rewards = RewardSet({
        "model": (judge, weights["model"]), "human": (human, weights["human"]),
        "format": (format_reward, config.format_weight),
    })  # fmt: skip
    tested = held_out_ids()
    with Progress(config.steps, f"paid by the {payer}") as progress:
        follower = Follower(learner, progress, watch)
        learner.train(lambda rollout: config.problems(rollout, exclude=tested), rewards, follower)
    return follower.rows


class Follower:
    """Keeps a row of each rollout, and of reasoning now and then."""

    def __init__(self, learner: Learner, progress: Progress, watch: Callable[[dict], None]):
        self.learner, self.progress, self.watch = learner, progress, watch
        self.rows: list[dict] = []
        self._evaluate()

    def __call__(self, rollout: int, experience: Experience, updates: list[dict]) -> bool:
        """After each rollout; never ends the run."""
        config, means = self.learner.config, group_statistics(experience)
        judged = [experience.rewards[name] for name in PAYERS]
        scores = {name: means[f"reward/{name}"] for name in PAYERS}
        self._add({
            "kind": "train", "step": rollout * config.minibatches, **scores,
            "agreement": agreement(*judged, config.group_size),
            "tokens": means["tokens_mean"], "entropy": updates[0]["entropy"],
            "sample": experience.completions[0],
        })  # fmt: skip
        if (rollout + 1) % config.eval_every == 0:
            self._evaluate()
        self.progress.update(
            self.learner.step, **{name: f"{score:.2f}" for name, score in scores.items()}
        )
        return False

    def _evaluate(self) -> None:
        learner, config = self.learner, self.learner.config
        found = evaluate(
            TorchSampler(learner.policy.model, learner.tokenizer), learner.tokenizer,
            _puzzles(config), k=config.eval_samples, max_tokens=config.cap(config.steps),
            seed=config.seed,
        )  # fmt: skip
        right = found.summary()["pass_at_1"]
        self._add({"kind": "eval", "step": learner.step, "reasoning": right})

    def _add(self, row: dict) -> None:
        self.rows.append(row)
        self.watch(row)


def human(
    prompts: list, completions: list, meta: list[dict], **columns: object
) -> list[float | None]:
    """What the person feels about each summary (0 to 1): pays in one arm, measures in both."""
    return [
        hidden_preference(text_of(prompt), strict_answer(text_of(completion)) or "", about)
        for prompt, completion, about in zip(prompts, completions, meta, strict=True)
    ]


def agreement(model: list[float], human: list[float], group_size: int) -> float | None:
    """How often both judges prefer the same one of two answers to the same question: the reward
    model's accuracy on what the policy writes now. None where the human likes all alike."""
    same = [
        (model[i] - model[j]) * (human[i] - human[j]) > 0
        for i, j in combinations(range(len(human)), 2)
        if i // group_size == j // group_size and human[i] != human[j]
    ]
    return sum(same) / len(same) if same else None


def _puzzles(config: GRPOConfig) -> list[Problem]:
    """The first `eval_problems` of each level of the test set."""
    by_level: dict[int, list[Problem]] = {}
    for problem in load_problems(config.eval_file):
        by_level.setdefault(problem.level, []).append(problem)
    return [problem for level in by_level.values() for problem in level[: config.eval_problems]]


def summarize(rows: list[dict]) -> dict:
    """Scores and agreement at the start, after SHORT steps and at the end (means of the three
    rollouts next to it), with how reasoning was at the start and at the end."""
    train = [row for row in rows if row["kind"] == "train"]
    reasoning = [row["reasoning"] for row in rows if row["kind"] == "eval"]
    places = {"start": 0, "short": SHORT, "long": train[-1]["step"]}
    scores = {name: _means_near(train, step) for name, step in places.items()}
    return {**scores, "reasoning": [reasoning[0], reasoning[-1]]}


def _means_near(rows: list[dict], step: int) -> dict[str, float | None]:
    near = sorted(rows, key=lambda row: abs(row["step"] - step))[:3]
    values = {
        name: [row[name] for row in near if row[name] is not None]
        for name in (*PAYERS, "agreement")
    }
    return {name: sum(found) / len(found) if found else None for name, found in values.items()}
