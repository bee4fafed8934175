"""What makes a stored result stale: every file that the run has read."""

from r1lab.claims import keys
from r1lab.claims.experiments import EXPERIMENTS
from r1lab.task import held_out_ids, load_problems, save_problems
from r1lab.training.config import GRPOConfig


def test_a_change_of_any_test_set_makes_a_run_stale(tmp_path, monkeypatch):
    """No run trains on a problem of any of them: another set is another run."""
    problems = load_problems("data/test_signs.jsonl")
    for name in ("signs", "logic"):
        save_problems(problems[:2], tmp_path / f"test_{name}.jsonl")
    monkeypatch.setattr(keys, "SHIPPED", tmp_path)
    config = GRPOConfig(eval_file=str(tmp_path / "test_signs.jsonl"))
    before = keys.job_key("code", config)
    assert keys.job_key("code", config) == before
    save_problems(problems[:3], tmp_path / "test_logic.jsonl")
    assert keys.job_key("code", config) != before


def test_the_chain_s_key_holds_all_test_sets():
    ids = {problem.id for path in EXPERIMENTS["chain"].problems for problem in load_problems(path)}
    assert ids == held_out_ids()
