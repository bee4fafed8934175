"""The explorers as a browser draws them: Python's numbers, and the same by mouse and by keyboard."""

import itertools
import random
from dataclasses import asdict
from statistics import median

import numpy as np
import pytest
import torch
from playwright.sync_api import expect
from scipy.stats import binomtest

from r1lab.errors import InputError
from r1lab.evaluation.estimators import cons_at_k, pass_at_k
from r1lab.objective import KL_ESTIMATORS, clipped_objective, group_advantages
from r1lab.report.answers import EXPLORERS, page, player
from r1lab.report.answers import browser as browse
from r1lab.files import SHIPPED
from r1lab.run import Run
from tree_search import Tree, mcts
from tests.tools.stills import STILL

NAMES = sorted(path.stem for path in EXPLORERS.glob("*.html"))
REFERENCE = torch.tensor([0.4, 0.3, 0.2, 0.1], dtype=torch.float64)


@pytest.fixture
def opened(browser, tmp_path):
    """Open an explorer from a file, without a server."""
    context = browser.new_context(viewport={"width": 760, "height": 900})

    def open_page(name, **data):
        (tmp_path / "page.html").write_text(page(name, **data), encoding="utf-8")
        tab = context.new_page()
        tab.goto((tmp_path / "page.html").as_uri())
        return tab

    yield open_page
    context.close()


def grown(rng, depth=4):
    """A tree of two children each, whose right leaf and prior are drawn."""
    size, leaves = 2 ** (depth + 1) - 1, 2**depth
    children = [[2 * node + 1, 2 * node + 2] for node in range(size - leaves)] + [[]] * leaves
    prior = [1.0]
    for _ in range(size - leaves):
        share = rng.random()
        prior += [share, 1 - share]
    found = rng.randrange(size - leaves, size)
    right = [node == found for node in range(size)]
    return Tree([str(node) for node in range(size)], children, prior, [2] * size, right)


TREE = grown(random.Random(5))

# The same numbers as in Python: (explorer, its function, ours, a draw of the arguments)


def clip(ratio, A, low, high):
    x = torch.tensor([[ratio]], dtype=torch.float64, requires_grad=True)
    y = clipped_objective(x, torch.tensor([[A]], dtype=torch.float64), low, high)
    return [y.item(), torch.autograd.grad(y.sum(), x)[0].item()]


def advantages(rewards, divide):
    return group_advantages(torch.tensor([rewards], dtype=torch.float64), divide_by_std=divide)[0].tolist()


def kl(name, shift, token):
    moved = torch.tensor(shift, dtype=torch.float64, requires_grad=True)
    chosen = torch.nn.functional.one_hot(torch.tensor(token), 4)
    logps = (REFERENCE.log() + moved * chosen).log_softmax(-1)
    values = KL_ESTIMATORS[name](logps[None], REFERENCE.log()[None])[0]
    weights = logps.detach().exp()  # samples are drawn, then held fixed
    mean = (weights * values).sum()
    spread = (weights * (values - mean) ** 2).sum().sqrt()
    return [mean.item(), spread.item(), torch.autograd.grad(mean, moved)[0].item()]


def vote(n, c, k, agree):
    """The mean of cons@k over all ways to draw k of the n answers."""
    answers = np.array([0] * c + [1 if agree else 1 + i for i in range(n - c)])
    drawn = answers[list(itertools.combinations(range(n), k))]
    return cons_at_k(drawn, (drawn == 0).astype(int)).mean()


def counts(rng, most):
    n = rng.randint(2, most)
    return n, rng.randint(0, n), rng.randint(1, n)


SAME = {
    "clip": ("(...a) => [clipped(...a), gradient(...a)]", clip,
             lambda rng: (rng.uniform(0, 2), rng.choice([-1, 1]), rng.random(), rng.random())),
    "advantages": ("advantages", advantages,
                   lambda rng: (rng.choices([0, 0.1, 1, 1.1], k=8), rng.random() < 0.5)),
    "kl": ("(...a) => Object.values(numbers(...a))", kl,
           lambda rng: (rng.choice(["k1", "k2", "k3"]), rng.uniform(-3, 3), rng.randrange(4))),
    "vote": ("voteAtK", vote, lambda rng: (*counts(rng, 9), rng.random() < 0.5)),
    "pass": ("passAtK", lambda n, c, k: pass_at_k(n, np.array([c]), k)[0], lambda rng: counts(rng, 64)),
    "tree": ("mcts", lambda values, c: mcts(TREE, values, budget=10**9, c=c).written,
             lambda rng: ([rng.random() for _ in TREE.names], rng.uniform(0, 3))),
    "interval": ("interval", lambda k, n: list(binomtest(k, n).proportion_ci(method="exact")),
                 lambda rng: counts(rng, 512)[1::-1]),
}  # fmt: skip


@pytest.mark.parametrize("name", SAME)
def test_an_explorer_computes_what_the_package_computes(opened, name):
    function, ours, draw = SAME[name]
    rng = random.Random(name)
    asked = [draw(rng) for _ in range(60)]
    data = {"tree": {"tree": asdict(TREE), "values": {"any": [0.5] * len(TREE.names)}}}.get(name, {})
    tab = opened("vote" if name == "pass" else name, **data)
    theirs = tab.evaluate(f"(all) => all.map((given) => ({function})(...given))", asked)
    for arguments, shown in zip(asked, theirs, strict=True):
        assert shown == pytest.approx(ours(*arguments), abs=1e-9), arguments


# For hands and ears


@pytest.mark.parametrize("name", NAMES)
def test_every_slider_answers_to_keyboard_and_mouse_at_once(opened, name):
    tab = opened(name)
    finding = tab.get_by_role("status")
    assert finding.get_attribute("aria-live") == "polite"
    start, times = finding.inner_text(), []
    assert start.endswith(".") and tab.evaluate(STILL) == (EXPLORERS / f"{name}.svg").read_text("utf-8")
    sliders = tab.get_by_role("slider").all()
    for slider in sliders:
        assert slider.get_attribute("aria-label") and slider.get_attribute("aria-valuetext")
        for key, limit in (("Home", "aria-valuemin"), ("End", "aria-valuemax")):
            slider.press(key)
            assert slider.get_attribute("aria-valuenow") == slider.get_attribute(limit)
            times.append(tab.evaluate("redrawn"))
        slider.press("ArrowLeft")
        assert slider.get_attribute("aria-valuenow") != slider.get_attribute("aria-valuemax")
        ring = slider.locator(".hit").evaluate("(hit) => getComputedStyle(hit).strokeWidth")
        assert ring == "3px"  # the focus can be seen
    tab.get_by_role("button", name="Reset").click()
    assert finding.inner_text() == start
    box = sliders[0].bounding_box()
    tab.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    tab.mouse.down()
    before = sliders[0].get_attribute("aria-valuenow")
    tab.mouse.move(box["x"] / 2, box["y"] - 60, steps=3)
    tab.mouse.up()
    assert sliders[0].get_attribute("aria-valuenow") != before
    assert median(times) < 50  # milliseconds


def test_numbers_from_python_are_shown_and_an_unknown_name_is_one_sentence(opened):
    tab = opened("advantages", rewards=[1, 1, 1])
    expect(tab.get_by_role("status")).to_contain_text("the group teaches nothing")
    assert tab.get_by_role("slider").count() == 3
    with pytest.raises(InputError, match="no explorer 'clap'; choose one of advantages, clip"):
        page("clap")


# A stored run


@pytest.fixture(scope="module")
def stored():
    run = Run(SHIPPED / "runs/zero")
    return "<!doctype html><meta charset=utf-8>" + player(run) + browse(run, 4)[0]


def test_a_run_is_looked_through_with_the_keyboard_alone(browser, stored, tmp_path):
    (tmp_path / "report.html").write_text(stored, encoding="utf-8")
    tab = browser.new_page(viewport={"width": 900, "height": 1600})
    tab.goto((tmp_path / "report.html").as_uri())
    asked, groups = (tab.frame_locator("iframe").nth(i) for i in (0, 1))
    slider, finding = groups.get_by_role("slider"), groups.get_by_role("status")
    expect(finding).to_contain_text("16 answers score")
    rows = groups.locator("#group > .answers > details")
    expect(rows).to_have_count(16)
    last = finding.inner_text()
    slider.press("Home")
    expect(finding).to_contain_text("Step 4:")
    assert finding.inner_text() != last and slider.get_attribute("aria-valuetext") == "step 4"
    advantages = [float(text.split()[0].replace("\N{MINUS SIGN}", "-")) for text in rows.locator("summary").all_inner_texts()]
    assert advantages == sorted(advantages, reverse=True) and len(advantages) == 16
    answer = rows.first.locator("pre")
    expect(answer).to_be_hidden()
    rows.first.locator("summary").press("Enter")
    expect(answer).to_contain_text("answer:")
    step = asked.locator("#step")
    expect(step).to_have_text("Step 80")
    asked.get_by_role("slider").press("ArrowRight")
    expect(step).to_have_text("Step 100")
    asked.get_by_role("combobox").select_option(index=4)
    expect(asked.get_by_role("status")).to_contain_text("Level 5")
    asked.get_by_role("button", name="Play").press("Enter")
    expect(step).to_have_text("Step 0")
    expect(asked.get_by_role("button", name="Stop")).to_be_visible()
    expect(step).to_have_text("Step 176", timeout=20_000)
    expect(asked.get_by_role("button", name="Play")).to_be_visible()
    tab.close()


def test_without_scripts_the_strips_of_the_last_step_stay_and_say_what_is_missing(browser, stored):
    context = browser.new_context(java_script_enabled=False)
    tab = context.new_page()
    tab.set_content(stored)
    expect(tab.locator("iframe").nth(1)).to_be_hidden()
    expect(tab.locator(".answers > details")).to_have_count(16)
    expect(tab.get_by_text("no script may run here").last).to_be_visible()
    tab.locator(".answers summary").first.click()
    expect(tab.locator(".answers pre").first).to_be_visible()
    context.close()
