"""The widgets as a person meets them: in JupyterLab, in a browser, with keyboard and mouse."""

import json
import re
from pathlib import Path

import nbformat
import pytest
from conftest import OPEN
from playwright.sync_api import expect

ROOT = Path(__file__).resolve().parents[2]

LIVE = f"""
import dataclasses
from dashboard import train_live
from r1lab.training.config import GRPOConfig
from r1lab.world.small_world import SmallWorld

test = {str(ROOT / "data" / "test_signs.jsonl")!r}
task = SmallWorld({{"signs/1": 1.0}}, {{"en": 1.0}}, test=test).task()
config = GRPOConfig(
    rollouts=500, questions=4, group_size=4, minibatches=1, caps=((0, 48),), checkpoint_every=1,
    eval_samples=1, final_samples=1,
)
task = dataclasses.replace(task, test=task.test[:8])
live = train_live({str(ROOT / "data" / "tiny")!r}, task, config, "run")
live
"""


def output(panel):
    return panel.locator(".jp-OutputArea-output")


@pytest.fixture
def run(lab):
    yield lab.run
    lab.close()


def test_an_explorer_is_alive_where_scripts_run_and_a_still_picture_elsewhere(run, lab):
    panel = run("explorer", "from r1lab.lab import explorer\nexplorer('clip')")
    inside = output(panel).frame_locator("iframe")
    dot = inside.get_by_role("slider", name="Ratio of the liked token")
    expect(dot).to_have_attribute("aria-valuetext", "ratio 1.50", timeout=120_000)
    for _ in range(12):
        dot.press("ArrowLeft")
    expect(dot).to_have_attribute("aria-valuetext", "ratio 1.26")
    expect(inside.get_by_role("status")).to_contain_text("a liked token is pushed up with full force")
    still = output(panel).locator("img")
    expect(still).to_be_hidden()
    frame, page = output(panel).locator("iframe"), inside.locator("body")
    assert abs(frame.bounding_box()["height"] - page.bounding_box()["height"]) < 3  # nothing is cut off
    stored = nbformat.from_dict(lab.page.evaluate("window.notebook.context.model.toJSON()"))
    stored.cells[0].outputs[0].data["text/plain"] = "from another machine"  # so nobody vouches for it
    nbformat.write(stored, lab.folder / "untrusted.ipynb")
    lab.close()
    lab.page.evaluate(OPEN, "untrusted.ipynb")
    expect(still).to_be_visible()
    assert "past its wall" in still.get_attribute("alt")
    expect(output(panel)).to_contain_text("A still picture")
    expect(frame).to_have_count(0)


def test_tokens_of_a_stored_answer_are_coloured(run):
    paths = [str(ROOT / "data" / name) for name in ("runs/zero", "tiny", "base")]
    panel = run("tokens", f"from dashboard import show_run\nshow_run(*{paths})")
    token = output(panel).locator("span[title]").nth(2)  # the first opens the thinking in all answers
    expect(token).to_have_attribute("title", re.compile(r"^[-+]\d"), timeout=120_000)
    panel.get_by_text("All numbers as a table").click()
    expect(output(panel).locator("details table tr").nth(1)).to_be_visible()
    before = token.get_attribute("title")
    output(panel).locator(".noUi-handle").nth(0).press("ArrowLeft")
    expect(token).not_to_have_attribute("title", before, timeout=30_000)


def test_training_starts_stops_and_is_shown_again_after_a_restart(run, lab):
    panel = run("dashboard", LIVE)
    start, stop = (output(panel).get_by_role("button", name=name) for name in ("Start", "Stop"))
    expect(stop).to_be_disabled(timeout=120_000)
    start.click()
    status = output(panel).locator("[role=status]")
    expect(status).to_contain_text(re.compile(r"Step [1-9]"), timeout=60_000)
    stop.click()
    expect(status).to_contain_text("Stopped.", timeout=60_000)
    expect(start).to_be_enabled()
    rows = (lab.folder / "run" / "metrics.jsonl").read_text().splitlines()
    step = json.loads(rows[-1])["step"]
    assert 0 < step < 500
    lab.close()
    panel = lab.run("again", 'from dashboard import show_run\nshow_run("run")')
    expect(status).to_contain_text(f"Step {step}:", timeout=120_000)


def test_an_empty_folder_is_one_sentence_and_no_traceback(run):
    panel = run("empty", 'from dashboard import show_run\nshow_run("nothing")')
    expect(output(panel)).to_have_text(
        re.compile(r"^\s*nothing is not a run folder, or has no metrics yet: [^\n.]*\.\s*$"), timeout=120_000
    )
