"""The page about a chain: what was left out, what the stages cost, and what the paper has beside."""

import json
import re

from r1lab.evaluation import suites
from r1lab.stages.benchmarks import BENCHMARKS
from r1lab.report.pages import AIME, write_chain_report


def stage(share: float, programs: float | None = 0.5, why: str = "", **told) -> dict:
    """A summary: every benchmark `share`, but programs."""
    cell = {"value": share, "ci95": [share / 2, share], "n": 9}
    other = {"value": programs, "ci95": None, "n": 0} | ({"left_out": why} if why else {})
    return {**told, "benchmarks": dict.fromkeys(BENCHMARKS, cell) | {"programs": other}}


STAGES = {
    "base": stage(0.25),
    "student": stage(0.125),
    "zero": stage(0.5, tokens=1000, wall_seconds=90.0, cpu_hours=0.05, peak_memory_gb=3.0),
    "dev1": stage(0.5, 1.0, tokens=600, data={"tokens": 5000, "programs_left_out": ""},
                  wall_seconds=30.0, cpu_hours=0.02, peak_memory_gb=4.0),
}  # fmt: skip
WHY = "programs cannot be run safely on this system, so none was run: no filter; see there."


def page_of(stages: dict, folder) -> str:
    (folder / "summary.json").write_text(json.dumps(stages))
    return " ".join(write_chain_report(folder).read_text().split())


def cells(page: str, title: str) -> list[str]:
    """A row of the table of costs."""
    part = page.partition("What each stage cost")[2].partition("</table>")[0]
    row = next(row for row in part.split("<tr>") if f'scope="row">{title}<' in row)
    return re.findall("<td>(.*?)</td>", row)


def test_sampled_and_learned_tokens_are_told_apart_and_summed(tmp_path):
    page = page_of(STAGES, tmp_path)
    zero = ["Base", "1,000", "1,000", "1 min 30 s", "0.05", "3.0", "+20.0", "+62.3"]
    assert cells(page, "R1-Zero") == zero
    assert cells(page, "Dev1") == ["Base", "5,000", "600", "30 s", "0.02", "4.0", "+30.0", "+43.4"]
    assert cells(page, "All") == ["", "6,000", "1,600", "2 min 00 s", "0.07", "", "", ""]
    assert all(source in page for source in ("v2 Fig. 1", "v2 Table 3", "wall time times processes"))


def test_points_compare_what_every_stage_was_measured_on(tmp_path):
    """Dev1's mean over four families, the base's over five: their difference would say nothing."""
    told = STAGES | {"dev1": stage(0.5, None, WHY, data={"tokens": 1, "programs_left_out": WHY})}
    page = page_of(told, tmp_path)
    assert (cells(page, "R1-Zero")[6], cells(page, "Dev1")[6]) == ("+25.0", "+25.0")
    assert "over 4 reasoning benchmarks" in page and "(mean of 4)" in page
    reason = "programs cannot be run safely on this system, so none was run: no filter."
    assert f"Programs were left out of Dev1, in training or measuring or both: {reason}<" in page
    assert "left out" not in page_of(STAGES, tmp_path)


def test_the_paper_s_numbers_are_those_of_its_file(tmp_path, monkeypatch):
    assert AIME == {
        "base": 15.6, "zero": 77.9, "dev1": 59.0, "dev2": 74.0, "dev3": 78.1, "r1": 79.8
    }  # fmt: skip
    told = STAGES | {"student_rl": stage(0.2, tokens=10, wall_seconds=1.0)}
    shown = page_of(told, tmp_path).partition("Qwen2.5-32B")[2]
    assert re.findall("<td>([0-9.]+)&nbsp;%", shown)[:4] == ["47.0", "91.6", "72.6", "94.3"]
    other = suites.PAPER.read_text().replace("[47.0, 60.0, 91.6", "[12.3, 60.0, 91.6")
    (tmp_path / "paper.json").write_text(other)
    monkeypatch.setattr(suites, "PAPER", tmp_path / "paper.json")
    assert "12.3&nbsp;%" in page_of(told, tmp_path)


def test_a_chain_of_a_user_s_task_has_that_task_s_row(tmp_path):
    cell = {"title": "mine, pass@1", "value": 0.5, "ci95": [0.4, 0.6], "n": 9}
    stages = {name: {"benchmarks": {"mine": cell}, "tokens": 5} for name in ("base", "zero")}
    page = page_of(stages, tmp_path)
    assert "mine, pass@1 (9)" in page and "Signs" not in page
    assert cells(page, "R1-Zero")[6] == "+0.0" and "(mean of 1)" in page
