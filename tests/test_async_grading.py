"""Grading beside sampling: the same experience as grading in line, and errors that are not lost."""

import copy
import threading
from dataclasses import replace
from types import SimpleNamespace

import pytest

from r1lab.errors import InputError
from r1lab.models.policy import Policy, load_model
from r1lab.sampling import SamplingParams, TorchSampler
from r1lab.training.config import GRPOConfig
from r1lab.training.distributed import World
from r1lab.training.loop import Learner
from r1lab.training.rollout import sampled
from r1lab.world.small_world import SmallWorld

MODEL, TOKENIZER = load_model("data/base")
IN_LINE = GRPOConfig.preset(
    "cpu", questions=6, group_size=4, minibatches=2, processes=1, caps=((0, 40),), grading_rows=5
)
MIXTURE = {"signs/1": 1.0, "programs/1": 1.0, "logic/1": 1.0}
WORLD = SmallWorld(MIXTURE, language_weight=0.2)
TASK = WORLD.task()
ASYNCHRONOUS = replace(IN_LINE, grading="asynchronous")
PROBLEMS = TASK.draw(0, 0, IN_LINE.questions)


@pytest.fixture(scope="module")
def sampler():
    return TorchSampler(MODEL, TOKENIZER)


def drawing(config, sampler, rewards=None):
    """The samples of rollout 5, and what waits for their rewards."""
    task = replace(TASK, rewards=rewards or TASK.rewards)
    step = 5 * config.minibatches
    learner = SimpleNamespace(
        config=config, task=task, sampler=sampler, tokenizer=TOKENIZER, world=World(), step=step
    )
    return sampled(learner, PROBLEMS)


def experience(config, sampler, rewards=None):
    with drawing(config, sampler, rewards) as (samples, reward):
        reward()
        return samples


def bits(one) -> tuple:
    """All of an experience, as what can be compared."""
    numbers = (one.totals.tolist(), [row.tolist() for row in one.old_logps])
    return one.prompt_ids, one.completion_ids, one.completions, one.finish, one.rewards, numbers


@pytest.mark.parametrize("rows", [1, 5, 24, 50])
@pytest.mark.parametrize("arm", ["true", "random"])
def test_grading_beside_sampling_changes_no_bit(sampler, rows, arm):
    rewards = replace(WORLD, arm=arm).rewards()
    in_line, asynchronous = (
        experience(replace(config, grading_rows=rows), sampler, rewards) for config in (IN_LINE, ASYNCHRONOUS)
    )
    assert bits(in_line) == bits(asynchronous)
    assert in_line.totals.unique().numel() > 1  # there is something to be the same


def test_how_many_are_graded_together_changes_no_bit(sampler):
    whole = experience(replace(IN_LINE, grading_rows=0), sampler)
    assert bits(experience(ASYNCHRONOUS, sampler)) == bits(whole)


def test_the_sampler_tells_of_each_completion_once_and_when_it_ends():
    sampler = TorchSampler(MODEL, TOKENIZER, max_rows=8)  # two batches
    told, prompts = [], [TOKENIZER(f"User: make {n} from 9,5,1 Assistant:").input_ids for n in (5, 13, 15)]
    params = SamplingParams(n=4, max_tokens=30, seed=1)
    drawn = sampler.generate(prompts, params, on_done=lambda *one: told.append(one))
    ended = zip(range(12), drawn.completion_ids, drawn.finish, strict=True)
    assert sorted(told) == list(ended)
    for batch in (told[:8], told[8:]):
        assert [len(ids) for _, ids, _ in batch] == sorted(len(ids) for _, ids, _ in batch)
    assert set(drawn.finish) == {"stop", "length"}
    assert sampler.generate(prompts, params).completion_ids == drawn.completion_ids


class Watched:
    """A sampler that writes down when it begins and ends."""

    def __init__(self, sampler):
        self.sampler, self.log = sampler, []

    def generate(self, *args, **kwargs):
        self.log.append("sampling begins")
        drawn = self.sampler.generate(*args, **kwargs)
        self.log.append("sampling ends")
        return drawn


def test_in_line_grading_begins_when_sampling_has_ended_and_on_the_same_thread(sampler):
    watched, threads = Watched(sampler), set()

    def reward(prompts, completions, **columns):
        threads.add(threading.current_thread())
        watched.log.append(len(completions))
        return [1.0] * len(completions)

    experience(IN_LINE, watched, {"reward": reward})
    assert watched.log == ["sampling begins", "sampling ends", 5, 5, 5, 5, 4]
    assert threads == {threading.main_thread()}


def test_asynchronously_grading_begins_while_others_are_sampled(sampler):
    """Sampling ends only once a grade has been given: in line it would wait for ever."""
    graded, waited = threading.Event(), []

    class Waits(Watched):
        def generate(self, *args, **kwargs):
            drawn = super().generate(*args, **kwargs)
            waited.append(graded.wait(timeout=20))
            return drawn

    def reward(prompts, completions, **columns):
        graded.set()
        return [1.0] * len(completions)

    experience(ASYNCHRONOUS, Waits(sampler), {"reward": reward})
    assert waited == [True]


def test_grades_may_arrive_while_the_samples_are_scored():
    """Each grade is given once the reference has been asked: earlier waits would be for ever."""
    config = replace(ASYNCHRONOUS, rollouts=1)
    scored, waited, seen = threading.Event(), [], []

    def reward(prompts, completions, **columns):
        waited.append(scored.wait(timeout=20))
        return [float(len(text)) for text in completions]

    task = replace(TASK, rewards={"length": reward})
    learner = Learner(config, task, Policy(copy.deepcopy(MODEL)), TOKENIZER, World())
    ask = learner.reference_logps

    def asked(samples):
        logps = ask(samples)
        scored.set()
        return logps

    learner.reference_logps = asked
    learner.train(lambda *one: seen.append(one))
    assert waited == [True] * 5
    _, graded, updates = seen[0]
    assert graded.totals.flatten().tolist() == [len(text) for text in graded.completions]
    assert len(updates) == config.minibatches


@pytest.mark.parametrize("error", [InputError, KeyboardInterrupt])
def test_an_end_while_the_samples_are_scored_leaves_no_thread_and_begins_no_grading(sampler, error):
    before, calls, go = threading.active_count(), [], threading.Event()

    def reward(prompts, completions, **columns):
        calls.append(go.wait(timeout=20))
        return [1.0] * len(completions)

    rewards = {"reward": reward}
    with pytest.raises(error, match="while scoring"), drawing(ASYNCHRONOUS, sampler, rewards):
        later = threading.Timer(0.5, go.set)
        later.start()
        raise error("while scoring")
    later.join()
    assert calls == [True]  # only the batch that was being graded
    assert threading.active_count() == before


@pytest.mark.parametrize("config", [IN_LINE, ASYNCHRONOUS], ids=lambda config: config.grading)
def test_a_grader_that_fails_says_so_in_the_same_sentence(sampler, config):
    def broken(prompts, completions, **columns):
        raise ZeroDivisionError("by zero")

    with pytest.raises(InputError, match="^the reward 'broken' failed: ZeroDivisionError: by zero.$"):
        experience(config, sampler, {"broken": broken})


def test_a_sampler_that_fails_leaves_no_thread_behind():
    class Broken:
        def generate(self, *args, **kwargs):
            raise InputError("the model's logits are not finite: its weights are damaged")

    before = threading.active_count()
    with pytest.raises(InputError, match="damaged"):
        experience(ASYNCHRONOUS, Broken())
    assert threading.active_count() == before


@pytest.mark.parametrize(
    "settings", [{"grading_rows": 0}, {"sampler": "vllm"}], ids=lambda settings: str(*settings)
)
def test_settings_under_which_nothing_could_be_graded_early_are_refused(settings):
    with pytest.raises(InputError, match="grading"):
        replace(ASYNCHRONOUS, **settings).check(1)
    IN_LINE.check(1)
    ASYNCHRONOUS.check(1)
