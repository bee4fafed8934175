"""The ledger: every claim can hold and can fail, jobs are shared, resumed, and go stale."""

import json
import re
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

from r1lab.claims import experiments, measures, runner
from r1lab.claims.command import _seconds
from r1lab.claims.experiments import EXPERIMENTS, load_chain, save_run
from r1lab.claims.keys import code_key, job_key
from r1lab.claims.measures import ArmRun, StoredRun
from r1lab.claims.registry import ARMS, CLAIMS, PROOFS, Claim, select
from r1lab.claims.replay import replay_stale
from r1lab.claims.runner import Laboratory, run_missing, verdict
from r1lab.claims.table import BEGIN, END, _signed, render, update_readme
from r1lab.errors import InputError
from r1lab.evaluation.estimators import Estimate, bootstrap_ci, macro_mean
from r1lab.evaluation.benchmarks import REASONING, asked
from r1lab.evaluation.evaluate import MEASURES, Evaluation
from r1lab.report.chain import mean_accuracy
from r1lab.stages.kept import after_short, chain_values
from r1lab.stages.pipeline import Chain, R1Config
from r1lab.training.config import GRPOConfig

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
    "true": LEARNED,
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
}
AS_FEARED = {**dict.fromkeys(AS_HOPED, LEARNED), "true": BASE, "ppo-1.0": BASE}


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


class FakeExperiments(dict):
    """In place of the chain and the searches: keeps values around the given ones."""

    def __init__(self, chain=CHAIN, search=SEARCH):
        self.calls, self.kept = [], {}
        levels = np.repeat([1, 2], 10)
        searched = {f"{name}/effect-{name}": value for name, value in search.items()}
        for name, means in (("chain", chain), ("search", searched)):
            self[name] = replace(
                EXPERIMENTS[name], problems=(), run=self.running(name, means, levels),
                load=lambda seed, name=name: self.kept.get((name, seed)),
            )  # fmt: skip

    def running(self, name, means, levels):
        def run(config, seed, key, folder, zero):
            self.calls.append((folder.name, zero))
            rng = np.random.default_rng(seed)
            values = {row: mean + rng.normal(0, 0.002, 20) for row, mean in means.items()}
            values |= {"levels/" + row.partition("/")[2]: levels for row in means}
            self.kept[name, seed] = StoredRun({"key": key, "wall_seconds": 60.0}, values)

        return run


class FakeZero:
    """Takes the place of `run_grpo`: writes what a finished run leaves, with the given ending."""

    def __init__(self, endings=AS_HOPED, halfway=(0.7, 0.4, 0.2), equal_clip_entropy=0.1):
        self.endings, self.halfway, self.calls = endings, halfway, []
        self.entropy = {"equal-clip": equal_clip_entropy}
        self.replayed, self.replayed_base = 0.3, BASE

    def __call__(self, config, name, *, runs, resume, stop_after=None):
        folder = runs / name
        assert resume == (folder / "config.json").exists()  # what the real one insists on
        self.calls.append(name)
        (folder / "evals").mkdir(parents=True, exist_ok=True)
        (folder / "config.json").write_text(json.dumps(asdict(config)))
        rng, base_rng = np.random.default_rng(config.seed), np.random.default_rng(config.seed)
        arm = name.rpartition("/")[2].rpartition("-seed")[0]
        if stop_after:
            row = {"kind": "train", "step": 4, "entropy": self.replayed, "elapsed": 9.0}
            (folder / "metrics.jsonl").write_text(json.dumps(row))
            evaluation(**self.replayed_base, rng=base_rng).save(folder / "eval_base.npz")
            return folder
        write_entropies(folder, [0.3, 0.3, *rng.normal(self.entropy.get(arm, 0.2), 0.01, 4)])
        evaluation(**BASE, rng=base_rng).save(folder / "eval_base.npz")
        evaluation(accuracy=self.halfway, rng=rng).save(folder / "evals/step-000040.npz")
        evaluation(**self.endings[arm], rng=rng).save(folder / "eval_final.npz")
        (folder / "summary.json").write_text(
            json.dumps({"steps": 80, "wall_seconds": 90.0, "commit": f"commit{config.seed}"})
        )
        return folder


def write_entropies(folder, entropies):
    rows = [{"kind": "train", "step": 4 * n, "entropy": e} for n, e in enumerate(entropies, 1)]
    rows.append({"kind": "eval", "step": 4 * len(rows), "pass_at_1": 0.5})
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture
def laboratory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for base in ("base", "tiny", "noskill", "small", "zero"):
        folder = tmp_path / "data" / base
        folder.mkdir(parents=True)
        (folder / "model.safetensors").write_bytes(base.encode())
    (tmp_path / GRPOConfig().eval_file).write_text("problems")
    return Laboratory(run=FakeZero(), experiments=FakeExperiments())


def verdicts(laboratory) -> dict[str, str]:
    results = laboratory.results()
    return {c.id: verdict(c, results.get(c.id), laboratory.jobs(c)) for c in CLAIMS}


def test_every_claim_is_shown_where_runs_end_as_the_paper_says(laboratory):
    assert run_missing(laboratory) == []
    assert set(verdicts(laboratory).values()) == {"shown"}


def test_no_claim_is_shown_where_runs_end_the_other_way(laboratory):
    feared = FakeExperiments(OPPOSITE, {name: -value for name, value in SEARCH.items()})
    run = FakeZero(AS_FEARED, (0.99, 0.99, 0.99), 0.25)
    opposite = replace(laboratory, run=run, experiments=feared)
    run_missing(opposite)
    found = verdicts(opposite)
    # In this world the format arm learns formats too.
    assert {name for name, word in found.items() if word != "not shown"} <= {"format-learned"}


def test_arms_that_claims_share_run_once_for_each_seed(laboratory):
    run_missing(laboratory)
    calls = laboratory.run.calls
    assert len(calls) == len(set(calls)) == len(ARMS) * 3
    assert run_missing(laboratory) == [] and len(calls) == len(ARMS) * 3


def test_one_claim_runs_only_its_arms(laboratory):
    run_missing(laboratory, only="reflection-null")
    assert {call.split("/")[1].split("-")[0] for call in laboratory.run.calls} == {"true", "random"}
    assert verdicts(laboratory)["small-base"] == "not run"
    with pytest.raises(InputError, match="pass-at-1"):
        run_missing(laboratory, only="no such claim")
    with pytest.raises(InputError, match=r"no seed 7; theirs are \[0, 1, 2, 3\]"):
        run_missing(laboratory, seed=7)


def test_a_spent_budget_starts_nothing_and_says_what_is_missing(laboratory):
    missing = run_missing(laboratory, only="pass-at-1", budget_seconds=0.0)
    assert laboratory.run.calls == [] and len(missing) == 3
    assert set(verdicts(laboratory).values()) == {"not run"}


def test_a_job_that_was_stopped_is_resumed_by_the_next_call(laboratory):
    stopped_once = []

    def run(config, name, *, runs, resume):
        if not stopped_once:
            stopped_once.append(name)
            (runs / name).mkdir(parents=True)
            (runs / name / "config.json").write_text("{}")
            raise KeyboardInterrupt
        return laboratory.run(config, name, runs=runs, resume=resume)

    interrupted = replace(laboratory, run=run)
    with pytest.raises(KeyboardInterrupt):
        run_missing(interrupted, only="pass-at-1")
    assert run_missing(interrupted, only="pass-at-1") == []
    assert stopped_once[0] in laboratory.run.calls


def test_other_settings_another_base_or_other_problems_make_results_stale(laboratory, tmp_path):
    def stale(laboratory):
        return {name for name, word in verdicts(laboratory).items() if word == "stale"}

    run_missing(laboratory)
    whole = {claim.id for claim in CLAIMS if set(claim.jobs) & set(EXPERIMENTS)}
    alone = {claim.id for claim in CLAIMS} - whole
    tuned = replace(laboratory, config=replace(laboratory.config, learning_rate=1e-3))
    assert stale(tuned) == alone
    (tmp_path / "data/tiny/model.safetensors").write_bytes(b"retrained")
    assert stale(replace(laboratory)) == {"small-base"}
    (tmp_path / GRPOConfig().eval_file).write_text("other problems")
    assert stale(replace(laboratory)) == alone
    (tmp_path / "data/small/model.safetensors").write_bytes(b"retrained")
    assert stale(replace(laboratory)) - alone == {c.id for c in CLAIMS if c.jobs == ["chain"]}


def test_an_experiment_runs_once_for_all_its_claims_and_is_found_by_its_name(laboratory):
    run_missing(laboratory, only="chain", seed=1)
    assert [name.rpartition("-")[0] for name, _ in laboratory.experiments.calls] == ["chain-seed1"]
    assert laboratory.run.calls == []
    found = verdicts(laboratory)
    assert {found[c.id] for c in CLAIMS if c.jobs == ["chain"]} == {"1 of 3 seeds"}
    assert not any(entry["shown"] for entry in laboratory.results().values())
    assert "1 of 3 seeds" in render(laboratory)
    run_missing(laboratory, only="dev2-regains")
    assert verdicts(laboratory)["dev2-regains"] == "shown"
    assert [call[0][:11] for call in laboratory.experiments.calls] == [
        "chain-seed1", "chain-seed2", "chain-seed3"
    ]  # fmt: skip


def test_the_chain_s_seed_that_was_known_before_its_claims_is_not_asked_for(laboratory):
    with pytest.raises(InputError, match=r"no seed 0; theirs are \[1, 2, 3\]"):
        run_missing(laboratory, only="chain", seed=0)
    run_missing(laboratory, only="dev2-regains")
    run_missing(laboratory, only="prm-hacked")
    asked_for = {name: list(entry["per_seed"]) for name, entry in laboratory.results().items()}
    assert asked_for == {"dev2-regains": ["1", "2", "3"], "prm-hacked": ["0", "1", "2"]}


def test_the_chain_is_given_the_ledger_s_own_r1_zero(laboratory):
    run_missing(laboratory, only="true", seed=1)
    run_missing(laboratory, only="chain")
    given = [zero for _, zero in laboratory.experiments.calls]
    assert given == [laboratory.job("true", 1).folder, None, None]


def test_fewer_seeds_never_replace_more(laboratory):
    run_missing(laboratory, only="chain")
    before = laboratory.results()
    other = FakeExperiments()
    other["chain"] = replace(other["chain"], config=replace(R1Config(), samples=5))
    fewer = replace(laboratory, experiments=other)
    run_missing(fewer, only="dev2-regains", seed=1)
    assert fewer.results() == before
    assert verdicts(fewer)["dev2-regains"] == "stale"


def test_a_problem_without_a_value_has_no_say(laboratory):
    claim = select("dev1-language")[0]
    run_missing(laboratory, only=claim.id)
    full = laboratory.results()[claim.id]
    for stored in laboratory.experiments.kept.values():
        for row in ("dev1/language_en", "dev1/language_zh"):
            stored.values[row][::2] = np.nan
    runner.record(laboratory, [claim])
    entry = laboratory.results()[claim.id]
    assert entry["effect"] != full["effect"] and entry["effect"] == pytest.approx(0.99, abs=0.002)
    assert all(np.isfinite(value) for value in entry["per_seed"].values())


def test_what_an_experiment_keeps_comes_back_and_a_damaged_file_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(experiments, "FILES", tmp_path)
    assert load_chain(0) is None
    values = {"r1/signs": np.array([0.25, np.nan, 1.0]), "levels/signs": np.array([1, 2, 2])}
    save_run(tmp_path / "chain-seed0.npz", {"key": "k", "wall_seconds": 1.0}, values)
    effect = measures.stored("chain/r1", "signs", "signs")({"chain": load_chain(0)})
    assert np.array_equal(effect.values, [0.25, np.nan, 1, 0.25, np.nan, 1], equal_nan=True)
    assert effect.levels.tolist() == [1, 2, 2, 1001, 1002, 1002] and len(set(effect.ids)) == 3
    with pytest.raises(InputError, match="no logic of r1"):
        load_chain(0).row("r1", "logic")
    whole = (tmp_path / "chain-seed0.npz").read_bytes()
    for damaged in (b"", b"nonsense", whole[: len(whole) // 2]):
        (tmp_path / "chain-seed0.npz").write_bytes(damaged)
        with pytest.raises(InputError, match="chain-seed0.npz is damaged"):
            load_chain(0)


def of_rows(rows, values) -> StoredRun:
    """A chain of which one stage was measured, with the levels that its rows really have."""
    kept = {f"dev1/{row}": values[row] for row in rows}
    return StoredRun({}, kept | {f"levels/{row}": asked(row).strata for row in rows})


@pytest.mark.parametrize("missing", [(), ("programs",), ("signs", "logic")])
def test_reasoning_accuracy_means_what_the_report_means_by_it(laboratory, monkeypatch, missing):
    """Each family counts the same, however many levels it has; a family without values does not."""
    monkeypatch.chdir(Path(__file__).parents[1])
    rng = np.random.default_rng(len(missing))
    values = {row: rng.random(len(asked(row).ids)) ** (place + 1)
              for place, row in enumerate(REASONING)}  # fmt: skip
    for row in missing:
        values[row][:] = np.nan
    values["sums"][:3] = np.nan  # problems that alone have no value
    cells = {}
    for row in REASONING:
        seen, strata = np.isfinite(values[row]), asked(row).strata
        mean = macro_mean(values[row][seen], strata[seen]) if seen.any() else None
        cells[row] = {"value": mean}
    effect = measures.stored("chain/dev1", *REASONING)({"chain": of_rows(REASONING, values)})
    ours = macro_mean(*runner._over_seeds(effect.values[None], effect.levels))
    assert ours == pytest.approx(mean_accuracy({"benchmarks": cells}), abs=1e-12)
    seen = np.isfinite(effect.values)
    pooled = macro_mean(effect.values[seen], effect.levels[seen])
    assert pooled != pytest.approx(ours, abs=1e-3)  # what all levels alike would give


def test_values_of_one_row_stay_as_they_are_to_the_last_bit():
    values, levels = np.random.default_rng(0).random(60), np.repeat([2, 3, 7], 20)
    assert np.array_equal(measures.evenly(values, levels), values)


def test_rollouts_that_are_near_are_resampled_together():
    """Values that go on as they were: one by one they would tell more than they know."""
    values = np.repeat([0.1, 0.5, 0.3, 0.9], 3)
    effect = measures.Effect(values, np.ones(12, dtype=int), [f"r{n}" for n in range(12)])
    found = measures.blocks(lambda runs: effect, 3)({})
    assert np.allclose(found.values, [0.1, 0.5, 0.3, 0.9]) and found.ids == ["r0", "r3", "r6", "r9"]
    alone, together = (bootstrap_ci(one.values, one.levels) for one in (effect, found))
    assert together.mean == pytest.approx(alone.mean)
    assert together.high - together.low > 1.4 * (alone.high - alone.low)
    odd = measures.blocks(lambda runs: effect, 5)({})
    assert len(odd.values) == 3 and odd.values[-1] == pytest.approx(0.9)


def test_hacking_is_counted_from_where_r1_s_own_stage_ends():
    rows = [{"kind": "train", "step": step, "model": step, "human": -step} for step in range(0, 80, 4)]
    rows.append({"kind": "eval", "step": 80, "reasoning": 0.5})
    late = after_short(rows)
    assert late["model"].tolist() == [step - 20 for step in (60, 64, 68, 72, 76)]
    assert late["human"].tolist() == [20 - step for step in (60, 64, 68, 72, 76)]


class MeasuredChain(Chain):
    """Every value of a stage is one number of its own."""

    def values(self, stage, row):
        return np.full(len(asked(row).ids), len(stage) / 100)


def test_all_that_the_chain_s_claims_read_is_kept_of_it(tmp_path, monkeypatch):
    monkeypatch.chdir(Path(__file__).parents[1])
    chain = MeasuredChain(R1Config(), "chain", tmp_path)
    (chain.folder / "hacking").mkdir(parents=True)
    rows = [{"kind": "train", "step": n, "model": 0.5 + n / 400, "human": 0.5} for n in range(0, 96, 4)]
    for payer in ("model", "human"):
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (chain.folder / f"hacking/{payer}.jsonl").write_text(text)
    told = {"student_rl": {"flops": 110}, "student_sft": {"flops": 100}}
    runs = {"chain": StoredRun({}, chain_values(chain, told))}
    found = {c.id: c.measure(runs).values for c in CLAIMS if c.jobs == ["chain"]}
    means = {name: values.mean() for name, values in found.items()}
    assert means["distill-gains"] == pytest.approx((len("student_sft") - len("student")) / 100)
    assert means["hacked-score"] == pytest.approx((82 - 20) / 400) and means["hacked-person"] == 0
    assert all(np.isfinite(values).all() for values in found.values())


def test_the_stored_searches_are_read_from_the_notebook_s_file(monkeypatch):
    monkeypatch.chdir(Path(__file__).parents[1])
    runs = {"search": experiments.load_search(0)}
    stored = json.loads(experiments.SEARCH.read_text())
    for claim in (claim for claim in CLAIMS if claim.jobs == ["search"]):
        effect = claim.measure(runs)
        mean = macro_mean(effect.values, effect.levels)
        assert mean == pytest.approx(stored["claims"][claim.id]["per_seed"][0], abs=1e-3)
    assert experiments.load_search(99) is None


@pytest.mark.parametrize("differs", [None, "metrics", "base"])
def test_a_stale_run_that_begins_alike_is_kept_and_another_is_not(
    laboratory, monkeypatch, differs
):
    """Only code changed: the base's evaluation and the first rows of the metrics decide."""
    run_missing(laboratory, only="pass-at-1")
    monkeypatch.setattr(runner, "code_key", lambda entry: "moved a function")
    moved, claim = replace(laboratory), select("pass-at-1")[0]
    assert verdict(claim, moved.results()[claim.id], moved.jobs(claim)) == "stale"
    if differs == "metrics":
        laboratory.run.replayed = 0.29
    if differs == "base":
        laboratory.run.replayed_base = {"accuracy": (0.5, 0.2, 0.9)}
    kept = 0 if differs else 3
    assert len(replay_stale(moved)) == kept
    assert len(run_missing(moved, only="pass-at-1", budget_seconds=0.0)) == 3 - kept


def test_a_run_with_other_settings_is_not_kept_however_alike_it_begins(laboratory):
    run_missing(laboratory, only="pass-at-1")
    longer = replace(laboratory, config=replace(laboratory.config, rollouts=99))
    assert replay_stale(longer) == []


def test_a_claim_whose_bounds_were_moved_is_stale(laboratory):
    run_missing(laboratory)
    claim = select("random-reward")[0]
    entry = laboratory.results()[claim.id]
    assert verdict(replace(claim, threshold=0.5), entry, laboratory.jobs(claim)) == "stale"


def test_results_outlive_their_run_folders(laboratory, tmp_path):
    run_missing(laboratory)
    before = laboratory.results()
    (tmp_path / "runs").rename(tmp_path / "elsewhere")
    run_missing(replace(laboratory), budget_seconds=0.0)
    assert laboratory.results() == before
    assert set(verdicts(laboratory).values()) == {"shown"}


def test_a_damaged_ledger_is_told_and_kept(laboratory):
    laboratory.ledger.write_text('{"claims": ')
    with pytest.raises(InputError, match="claims.json"):
        run_missing(laboratory)
    assert laboratory.ledger.read_text() == '{"claims": '


def test_shown_needs_all_seeds_and_the_whole_interval_within_the_bounds():
    claim = Claim("c", "s", "§", ("true",), measures.gain("true"), "above", 0.1)
    assert claim.holds([0.2, 0.3], Estimate(0.25, 0.15, 0.35))
    assert not claim.holds([0.2, 0.05], Estimate(0.25, 0.15, 0.35))
    assert not claim.holds([0.2, 0.3], Estimate(0.25, 0.05, 0.35))
    below, within = replace(claim, relation="below"), replace(claim, relation="within")
    assert below.holds([-0.5], Estimate(-0.5, -0.6, 0.05))
    assert not below.holds([0.0], Estimate(0.0, -0.1, 0.11))
    assert within.holds([0.05], Estimate(0.05, -0.05, 0.09))
    assert not within.holds([-0.15], Estimate(-0.05, -0.09, 0.0))


def test_the_registry_is_consistent():
    assert len({claim.id for claim in CLAIMS}) == len(CLAIMS)
    assert {name for claim in CLAIMS for name in claim.jobs} == {*ARMS, *EXPERIMENTS}


def test_measures_compare_the_same_problems_whatever_their_order(tmp_path):
    rng = np.random.default_rng(0)
    for arm in ("one", "other"):
        (tmp_path / arm).mkdir()
        before, after = evaluation(**BASE, rng=rng), evaluation(**LEARNED, rng=rng)
        before.save(tmp_path / arm / "eval_base.npz")
        after.select(after.ids[::-1]).save(tmp_path / arm / "eval_final.npz")
        expected = after["correct"].mean(axis=1) - before["correct"].mean(axis=1)
        found = measures.gain(arm)({arm: ArmRun(tmp_path / arm)})
        assert np.allclose(found.values, expected)
    runs = {arm: ArmRun(tmp_path / arm) for arm in ("one", "other")}
    parts = [measures.gain(arm) for arm in ("one", "other")]
    found = measures.difference(*parts, share=0.5)(runs).values
    assert np.allclose(found, 0.5 * parts[0](runs).values - parts[1](runs).values)
    top = measures.top_level(parts[0])(runs)
    assert np.array_equal(top.values, parts[0](runs).values[LEVELS == 3])
    assert top.ids == [f"p{place}" for place in range(40, 60)]


def test_arms_of_different_problems_are_not_compared(tmp_path):
    effect = measures.Effect(np.zeros(1), np.ones(1, dtype=int), ["p1"])
    compare = measures.difference(lambda runs: effect, lambda runs: effect._replace(ids=["p2"]))
    with pytest.raises(InputError, match="different problems"):
        compare({})


def test_the_end_is_compared_with_the_best_point(tmp_path):
    rng = np.random.default_rng(0)
    (tmp_path / "evals").mkdir()
    evaluation(**BASE, rng=rng).save(tmp_path / "eval_base.npz")
    evaluation(accuracy=(1, 1, 1), rng=rng).save(tmp_path / "evals/step-000040.npz")
    evaluation(accuracy=(1, 1, 0), rng=rng).save(tmp_path / "eval_final.npz")
    effect = measures.end_against_best("true")({"true": ArmRun(tmp_path)})
    assert np.array_equal(effect.values, np.where(LEVELS == 3, -1, 0))


def test_wrong_answers_are_compared_where_both_arms_have_some(tmp_path):
    def arm(name, right, tokens):
        (tmp_path / name).mkdir()
        one = evaluation(**BASE, rng=np.random.default_rng(0))
        one.measures.update(correct=right, tokens=tokens)
        one.save(tmp_path / name / "eval_final.npz")
        return ArmRun(tmp_path / name)

    shape = len(LEVELS), K
    right = np.zeros(shape, dtype=int)
    right[0] = 1  # no wrong answer to the first problem
    right[1, 0] = 1
    tokens = np.full(shape, 50)
    tokens[1, 0] = 999  # a right answer has no say
    runs = {"long": arm("long", right, tokens), "short": arm("short", right * 0, tokens * 0 + 20)}
    effect = measures.wrong_length("long", "short")(runs)
    assert effect.values.tolist() == [0.0] + [30.0] * (len(LEVELS) - 1)


def test_entropy_is_that_of_the_later_rollouts(tmp_path):
    write_entropies(tmp_path, [0.5, 0.4, 0.3, 0.2])
    effect = measures.late_entropy("true")({"true": ArmRun(tmp_path)})
    assert effect.values.tolist() == [0.3, 0.2] and effect.ids == ["step 12", "step 16"]


def test_a_group_is_idle_when_all_its_samples_are_right():
    one = evaluation(accuracy=(1, 0.5, 0), rng=np.random.default_rng(0))
    assert np.array_equal(measures.per_problem(one, "all_right"), LEVELS == 1)


def test_a_run_without_what_a_measure_needs_is_told(tmp_path):
    with pytest.raises(InputError, match="evals/step"):
        measures.end_against_best("true")({"true": ArmRun(tmp_path)})
    with pytest.raises(InputError, match="cons_at_64"):
        measures.per_problem(evaluation(**BASE, rng=np.random.default_rng(0)), "cons_at_64")


def write_package(folder, **files):
    for name, source in files.items():
        path = folder / "pack" / f"{name.replace('__', '/')}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source)
    return code_key("pack.entry", folder / "pack")


def test_code_counts_where_the_entry_can_reach_it(tmp_path):
    start = dict(
        entry='"""Doc."""\nfrom pack.room import part\nx = 1\n',
        room__part='from pack.report import show\ny = 1\n',
        room__deep="value = 1\n",
        report="show = 1\n",
        stranger="z = 1\n",
    )
    (tmp_path / "pack/room").mkdir(parents=True)
    (tmp_path / "pack/room/__init__.py").write_text("from .deep import value\n")
    key = write_package(tmp_path, **start)
    same = [
        dict(entry="# a comment\nfrom pack.room import part\n\nx  =  1\n"),
        dict(stranger="z = 2\n"),
        dict(report="show = 2\n"),
    ]
    for change in same:
        assert write_package(tmp_path, **{**start, **change}) == key
    for change in [dict(entry=start["entry"] + "x = 2"), dict(room__part="y = 2"),
                   dict(room__deep="value = 2")]:  # fmt: skip
        assert write_package(tmp_path, **{**start, **change}) != key


def test_a_job_without_its_base_waits_and_the_others_run(laboratory, tmp_path):
    (tmp_path / "data" / "noskill" / "model.safetensors").unlink()
    waiting = run_missing(laboratory)
    assert len(waiting) == 3 and all("noskill" in name for name in waiting)
    found = verdicts(laboratory)
    assert found.pop("no-skill") == "not run"
    assert set(found.values()) == {"shown"}


def test_a_missing_test_set_is_told(laboratory, tmp_path):
    config = GRPOConfig()
    assert job_key("code", config) != job_key("other code", config)
    (tmp_path / config.eval_file).unlink()
    with pytest.raises(InputError, match="test_signs"):
        job_key("code", config)


def test_the_table_says_what_was_shown_and_what_was_not_run(laboratory):
    run_missing(laboratory, only="majority-vote")
    rows = render(laboratory).splitlines()
    assert len(rows) == 2 + len(CLAIMS) + len(PROOFS)
    assert len({len(re.findall(r"(?<!\\)\|", row)) for row in rows}) == 1  # no bar inside a cell
    vote = next(row for row in rows if "cons@16" in row)
    assert "> +8.0" in vote and "**shown**" in vote and "points [+" in vote
    assert sum("**not run**" in row for row in rows) >= 3


def test_an_entry_names_the_commits_of_its_runs(laboratory):
    run_missing(laboratory, only="pass-at-1")
    assert laboratory.results()["pass-at-1"]["commit"] == "commit0, commit1, commit2"


def test_small_numbers_keep_their_digits():
    assert _signed(select("clip-higher")[0], -0.0123) == "−0.012"
    assert _signed(select("pass-at-1")[0], -0.0123) == "−1.2"
    assert _signed(select("pass-at-1")[0], -0.0001) == "0"


def test_arms_start_from_what_the_preset_would_run(laboratory):
    """Each arm is a configuration that can train, and differs from all others."""
    configs = [replace(laboratory.config, **settings) for settings in ARMS.values()]
    for config in configs:
        config.check(processes=2)
    assert len({repr(config) for config in configs}) == len(ARMS)


def test_the_table_goes_between_the_markers(tmp_path):
    readme = tmp_path / "README.md"
    readme.write_text(f"# r1lab\n{BEGIN}\nold\n{END}\nmore\n")
    update_readme(readme, "| new |")
    assert readme.read_text() == f"# r1lab\n{BEGIN}\n| new |\n{END}\nmore\n"
    readme.write_text("# r1lab\n")
    with pytest.raises(InputError, match="claims:begin"):
        update_readme(readme, "| new |")


@pytest.mark.parametrize("text, seconds", [("90s", 90), ("30m", 1800), ("1.5h", 5400)])
def test_a_budget_is_read(text, seconds):
    assert _seconds(text) == seconds


@pytest.mark.parametrize("text", ["30", "m", "-3m", "3 days"])
def test_a_budget_that_is_none_is_refused(text):
    with pytest.raises(InputError, match="30m"):
        _seconds(text)
