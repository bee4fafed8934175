"""A ledger that runs nothing: fakes of a run, of the experiments, and their values as one likes."""

import json
from dataclasses import replace

import numpy as np
import pytest

from r1lab.evaluation.measure import MEASURES, Evaluation
from r1lab.stages.benchmarks import REASONING
from tests.experiments import keys
from tests.experiments.experiment import EXPERIMENTS
from tests.experiments.measures import StoredRun
from tests.experiments.registry import CLAIMS
from tests.experiments.runner import Laboratory, verdict

LEVELS = np.repeat([1, 2, 3], 20)
K = 16


def evaluation(accuracy, rng, tokens=30, words=1, formats=0.5, ids=None) -> Evaluation:
    """Problems with the given accuracy by level; a wrong answer is another one each time."""
    shape = (len(LEVELS), K)
    right = rng.random(shape) < np.array(accuracy)[LEVELS - 1][:, None]
    answers = np.where(right, 0, np.arange(1, K + 1))
    measured = dict.fromkeys(MEASURES, np.zeros(shape, dtype=int))
    measured |= {"correct": right.astype(int), "strict": right.astype(int), "answer": answers}
    measured |= {"tokens": rng.poisson(tokens, shape), "reflection": rng.poisson(words, shape)}
    measured |= {"format": (rng.random(shape) < formats).astype(int)}
    ids = ids or [f"p{place}" for place in range(len(LEVELS))]
    return Evaluation(np.arange(len(LEVELS)), LEVELS, ids, [[""] * K] * len(LEVELS), measured)


BASE = dict(accuracy=(0.5, 0.2, 0.05))
LEARNED = dict(accuracy=(0.9, 0.7, 0.4), tokens=90, words=4, formats=0.9)
AS_HOPED = {
    "true": {**LEARNED, "accuracy": (0.9, 0.7, 0.15)},
    "random": BASE,
    "format": dict(accuracy=(0.5, 0.2, 0.05), formats=0.95),
    "tiny": dict(accuracy=(0.5, 0.2, 0.05)),
    "noskill": dict(accuracy=(0.6, 0.25, 0.05)),
    "grpo": LEARNED,
    "ppo-0.95": dict(accuracy=(0.6, 0.4, 0.2)),
    "ppo-1.0": LEARNED,
    "per-answer": {**LEARNED, "tokens": 120},
    "no-std": {**LEARNED, "accuracy": (0.9, 0.7, 0.2)},
    "equal-clip": LEARNED,
    **dict.fromkeys(("lora-1", "lora-4", "lora-16", "cispo", "rloo"), LEARNED),
    "dynamic": {**LEARNED, "accuracy": (0.95, 0.85, 0.7)},
    "no-kl": {**LEARNED, "accuracy": (0.95, 0.8, 0.6)},
}
WORSE = ("true", "ppo-1.0", "lora-1", "lora-4", "lora-16", "cispo", "rloo", "dynamic")
AS_FEARED = {**dict.fromkeys(AS_HOPED, LEARNED), **dict.fromkeys(WORSE, BASE)}
AS_FEARED["no-kl"] = dict(accuracy=(0.2, 0.0, 0.0))

# Of a chain, what each row holds where the paper is right, and where nothing is as it says.
ACCURACY = dict(zero=0.6, dev1=0.5, dev2=0.6, dev2_no_language=0.61, dev3=0.6, dev3_random=0.5, r1=0.61,
                student=0.2, student_sft=0.4, student_rl=0.3)  # fmt: skip
LANGUAGE = dict(zero=0.5, dev1=0.99, dev2=1.0, dev2_no_language=0.9)
CHAT = dict(zero=0.2, dev3=0.8, r1=0.95)
CHAIN = {f"{stage}/{row}": value for stage, value in ACCURACY.items() for row in REASONING}
CHAIN |= {f"{s}/{row}": value for s, value in LANGUAGE.items() for row in ("language_en", "language_zh")}
CHAIN |= {f"{stage}/helpfulness": value for stage, value in CHAT.items()}
CHAIN |= {"hacking_model/model": 0.2, "hacking_model/human": -0.3, "hacking_human/human": 0.1}
OPPOSITE = {
    name: -value if "hacking" in name else 1 - value
    for name, value in CHAIN.items()
} | {f"{stage}/{row}": value for stage, value in dict(dev2_no_language=0.7, r1=0.3).items() for row in REASONING}
SEARCH = {"prm-hacked": -0.2, "rule-control": 0.4, "prm-reranks": 0.4, "mcts-lead-shrinks": -0.3,
          "value-costs": -0.2}  # fmt: skip
# Of the next steps, what the rows of each arm hold where they do as hoped.
LIKE = dict.fromkeys((*REASONING, "helpfulness", "safety", "french", "language_fr"), 0.4)
STEPS = {
    "french": {"dev3": LIKE, "french": {**LIKE, "language_fr": 0.95}},
    "programs": {"others": LIKE, "programs": {**LIKE, "programs": 0.5}},
    "one-loss": {"sft_then_rl": LIKE, "one_loss": {**LIKE, "helpfulness": 0.9}},
    **{
        name: {"usual": {"lost": 0.3, "usual": 0.8}, "varied": {"lost": 0.1, "usual": 0.8}}
        for name in ("wordings", "wordings-llama")
    },
}
# Lesson 13 has three arms after its cold start.
ENGLISH = {
    "cold_start": {"accuracy": 0.3, "hardest": 0.1, "tokens": 200, "entropy": 0.3},
    "rl": {"accuracy": 0.5, "hardest": 0.3, "tokens": 280, "entropy": 0.9},
    "random": {"accuracy": 0.3}, "sft": {"accuracy": 0.3},
}  # fmt: skip
ENGLISH_FAILED = {
    "cold_start": ENGLISH["cold_start"],
    "rl": {"accuracy": 0.2, "hardest": 0.0, "tokens": 150, "entropy": 0.2},
    "random": {"accuracy": 0.6}, "sft": {"accuracy": 0.3},
}  # fmt: skip


# Of bases that lack a skill, and that were taught it.
SKILL = {
    "sound": {"gain": 0.5, "accuracy": 0.7}, "verdicts": {"gain": 0.0, "accuracy": 0.2},
    "steps": {"gain": 0.1, "accuracy": 0.2}, "verdicts_taught": {"accuracy": 0.6},
    "steps_taught": {"accuracy": 0.6},
}  # fmt: skip
SKILL_FAILED = {
    "sound": {"gain": 0.1, "accuracy": 0.3}, "verdicts": {"gain": 0.2, "accuracy": 0.6},
    "steps": {"gain": 0.2, "accuracy": 0.6}, "verdicts_taught": {"accuracy": 0.5},
    "steps_taught": {"accuracy": 0.5},
}  # fmt: skip
COLD = {
    "zero": {"accuracy": 0.7}, "dev1_100": {"accuracy": 0.2}, "dev1_all": {"accuracy": 0.7},
    "dev2_100": {"accuracy": 0.6, "language": 1.0}, "plain_100": {"accuracy": 0.6, "language": 0.8},
}  # fmt: skip
COLD_FAILED = {
    "zero": {"accuracy": 0.5}, "dev1_100": {"accuracy": 0.6}, "dev1_all": {"accuracy": 0.3},
    "dev2_100": {"accuracy": 0.5, "language": 0.7}, "plain_100": {"accuracy": 0.6, "language": 0.8},
}  # fmt: skip
TAUGHT = {
    "student": {"pass_at_64": 0.6}, "rl": {"pass_at_1": 0.4, "pass_at_64": 0.4},
    "sft": {"pass_at_1": 0.5, "pass_at_64": 0.8}, "on_policy": {"pass_at_1": 0.6},
    "sft_rl": {"pass_at_1": 0.6}, "sft_on_policy": {"pass_at_1": 0.7},
}  # fmt: skip
TAUGHT_FAILED = {
    "student": {"pass_at_64": 0.6}, "rl": {"pass_at_1": 0.7, "pass_at_64": 0.8},
    "sft": {"pass_at_1": 0.7, "pass_at_64": 0.4}, "on_policy": {"pass_at_1": 0.6},
    "sft_rl": {"pass_at_1": 0.6}, "sft_on_policy": {"pass_at_1": 0.5},
}  # fmt: skip
ASKED = {"base": 0.3, "base_few-shot": 0.5, "zero": 0.8, "zero_few-shot": 0.5, "r1": 0.8,
         "r1_few-shot": 0.5}  # fmt: skip
THOUGHT = {"base_vote_16": 0.3, "r1_vote_1": 0.7, "r1_tea_256": 0.7, "r1_vote_matched": 0.8,
           "r1_wait_256": 0.9, "r1_vote_16": 0.8, "r1_best_8": 0.9}  # fmt: skip


def failed(arms: dict[str, dict[str, float]]) -> dict[str, dict[str, float]]:
    """The same where the second arm is a failure: more is lost, and all else is worse."""
    (control, own), (arm, _) = arms.items()
    worse = {row: value + (0.5 if row == "lost" else -0.5) for row, value in own.items()}
    return {control: own, arm: worse}


FAILED = {name: failed(arms) for name, arms in STEPS.items()}
HOPED = (ENGLISH, SKILL, COLD, TAUGHT)
FEARED = (ENGLISH_FAILED, SKILL_FAILED, COLD_FAILED, TAUGHT_FAILED)
for steps, sign, own in ((STEPS, 1, HOPED), (FAILED, -1, FEARED)):
    steps |= dict(zip(("english", "skill", "cold-starts", "distil"), own))
    steps["few-shot"] = {arm: {"signs": sign * value} for arm, value in ASKED.items()}
    steps["thinking"] = {arm: {"accuracy": sign * value} for arm, value in THOUGHT.items()}
    steps["thinking"]["r1_vote_1"]["tokens"] = -sign * 100.0  # at both levels, which is more than twice it


class FakeExperiments(dict):
    """In place of the chain, the searches and the next steps: keeps values around the given ones."""

    def __init__(self, chain=CHAIN, search=SEARCH, steps=STEPS):
        self.calls, self.kept = [], {}
        all_means = {
            "chain": chain,
            "search": {f"{name}/effect-{name}": value for name, value in search.items()},
            **{
                name: {f"{arm}/{row}": v for arm, own in arms.items() for row, v in own.items()}
                for name, arms in steps.items()
            },
        }
        for name, means in all_means.items():
            self[name] = replace(
                EXPERIMENTS[name], run=self.running(name, means),
                load=lambda seed, name=name: self.kept.get((name, seed)),
            )  # fmt: skip

    def running(self, name, means):
        def run(seed, key, folder, before):
            self.calls.append((folder.name, before))
            folder.mkdir(parents=True, exist_ok=True)
            rng = np.random.default_rng(seed)
            values = {row: mean + rng.normal(0, 0.002, 20) for row, mean in means.items()}
            values |= {"levels/" + row.partition("/")[2]: np.repeat([1, 2], 10) for row in means}
            self.kept[name, seed] = StoredRun({"key": key, "wall_seconds": 60.0}, values)

        return run


class FakeZero:
    """Takes the place of `run_arm`: writes what a finished run leaves, with the given ending."""

    def __init__(self, endings=AS_HOPED, halfway=(0.7, 0.4, 0.2), equal_clip_entropy=0.1):
        self.endings, self.halfway, self.calls = endings, halfway, []
        self.entropy = {"equal-clip": equal_clip_entropy}

    def __call__(self, settings, name, runs):
        folder = runs / name
        self.calls.append(name)
        (folder / "evals").mkdir(parents=True, exist_ok=True)
        (folder / "config.json").write_text(json.dumps(settings))
        seed = settings["seed"]
        rng, base_rng = np.random.default_rng(seed), np.random.default_rng(seed)
        arm = name.rpartition("/")[2].rpartition("-seed")[0]
        own_rng = np.random.default_rng([seed, *arm.encode()])  # no arm ends exactly as another
        write_entropies(folder, [0.3, 0.3, *own_rng.normal(self.entropy.get(arm, 0.2), 0.01, 4)])
        evaluation(**BASE, rng=base_rng).save(folder / "eval_base.npz")
        evaluation(accuracy=self.halfway, rng=rng).save(folder / "evals/step-000040.npz")
        evaluation(**self.endings[arm], rng=own_rng).save(folder / "eval_final.npz")
        (folder / "summary.json").write_text(
            json.dumps({"steps": 80, "wall_seconds": 90.0, "commit": f"commit{seed}"})
        )
        return folder


def write_entropies(folder, entropies):
    rows = [{"kind": "train", "step": 4 * n, "entropy": e} for n, e in enumerate(entropies, 1)]
    rows.append({"kind": "eval", "step": 4 * len(rows), "pass_at_1": 0.5})
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture
def laboratory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for base in ("base", "tiny", "noskill", "small", "zero", "r1", "llama", "english"):
        folder = tmp_path / "data" / base
        folder.mkdir(parents=True)
        (folder / "model.safetensors").write_bytes(base.encode())
    monkeypatch.setattr(keys, "SHIPPED", tmp_path / "data")
    (tmp_path / "data/test_signs.jsonl").write_text("problems")
    return Laboratory(run=FakeZero(), experiments=FakeExperiments())


def verdicts(laboratory) -> dict[str, str]:
    results = laboratory.results()
    return {c.id: verdict(c, results.get(c.id), laboratory.jobs(c)) for c in CLAIMS}
