"""The widgets as a person meets them: in JupyterLab, in a browser, with keyboard and mouse."""

import json
import re
from pathlib import Path

import pytest
from playwright.sync_api import expect

ROOT = Path(__file__).resolve().parents[2]

LIVE = f"""
import dataclasses
from r1lab.lab.dashboard import train_live
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


def moved_by_keyboard(panel, slider: int, key: str, times: int = 1) -> tuple[str, str]:
    """Press a key on a slider; the figure's address before and after."""
    picture = output(panel).locator("img").first
    expect(picture).to_be_visible(timeout=120_000)
    before = picture.get_attribute("src")
    handle = output(panel).locator(".noUi-handle").nth(slider)
    handle.focus()
    for _ in range(times):
        handle.press(key)
    expect(picture).not_to_have_attribute("src", before)
    return before, picture.get_attribute("src")


@pytest.fixture
def run(lab):
    yield lab.run
    lab.close()


@pytest.mark.parametrize(("name", "key", "words"), [
    ("advantage_explorer", "ArrowLeft", "Rewards: mean 0.43"),
    ("clip_landscape", "ArrowRight", "below 0.78"),
    ("kl_explorer", "ArrowRight", "At shift +1.1"),
])  # fmt: skip
def test_a_slider_moved_by_keyboard_changes_figure_and_words(run, name, key, words):
    panel = run(name, f"from r1lab.lab.widgets import {name}\n{name}()")
    moved_by_keyboard(panel, 0, key)
    expect(output(panel)).to_contain_text(words)
    output(panel).get_by_role("button", name="Reset").click()
    expect(output(panel)).not_to_contain_text(words)


def test_tokens_of_a_stored_answer_are_coloured(run):
    paths = [str(ROOT / "data" / name) for name in ("runs/zero", "tiny", "base")]
    panel = run("tokens", f"from r1lab.lab.dashboard import show_run\nshow_run(*{paths})")
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
    expect(output(panel).locator("table tr")).to_have_count(1 + 4)
    lab.close()
    panel = lab.run("again", 'from r1lab.lab.dashboard import show_run\nshow_run("run")')
    expect(status).to_contain_text(f"Step {step}:", timeout=120_000)
    expect(output(panel).locator("table tr")).to_have_count(1 + 4)


def test_an_empty_folder_is_one_sentence_and_no_traceback(run):
    panel = run("empty", 'from r1lab.lab.dashboard import show_run\nshow_run("nothing")')
    expect(output(panel)).to_have_text(
        re.compile(r"^\s*nothing is not a run folder, or has no metrics yet: [^\n.]*\.\s*$"), timeout=120_000
    )
