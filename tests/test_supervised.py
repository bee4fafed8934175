"""The supervised loop: which tokens are learned, the loss, the schedule. Resuming: test_sft.py."""

import pytest
import torch

from r1lab.models.policy import load_model
from r1lab.world.bases import build_model, build_tokenizer
from r1lab.training.distributed import World
from r1lab.training.processes import StopRequest
from r1lab.run import Run
from r1lab.training.supervised import SupervisedConfig, learning_rate, train_supervised

TOKENIZER = build_tokenizer()


@pytest.mark.parametrize(("learn_prompts", "first"), [(True, (1, 1)), (False, (2, 4))])
def test_pretraining_learns_all_that_has_a_past_and_fine_tuning_the_completions(learn_prompts, first, tmp_path):
    torch.manual_seed(0)
    model = build_model("tiny", len(TOKENIZER))
    pairs = [([5, 6], [7, 8, 9, 10]), ([11, 12, 13, 14], [15])]
    expected, learned = 0.0, 0
    for (prompt, completion), start in zip(pairs, first, strict=True):
        ids = torch.tensor([*prompt, *completion])
        logps = model(ids[None]).logits[0, :-1].log_softmax(-1)[range(len(ids) - 1), ids[1:]]
        expected, learned = expected - logps[start - 1 :].sum().item(), learned + len(ids) - start
    run, config = Run(tmp_path), SupervisedConfig(steps=1, learn_prompts=learn_prompts)
    assert train_supervised(World(), StopRequest(), run, config, model, TOKENIZER, lambda step: pairs)
    assert run.metrics[0]["loss"] == pytest.approx(expected / learned, rel=1e-5)


def test_fine_tuning_teaches_the_completion(tmp_path):
    torch.manual_seed(0)
    model = build_model("tiny", len(TOKENIZER))
    pair = (TOKENIZER("make 5 from 3,2").input_ids, TOKENIZER("3+2").input_ids)
    config = SupervisedConfig(steps=30, warmup_steps=2, learn_prompts=False, weight_decay=0.0)
    run = Run(tmp_path)
    documents = lambda step: [pair] * 4  # noqa: E731
    assert train_supervised(World(), StopRequest(), run, config, model, TOKENIZER, documents)
    trained, _ = load_model(run.model)
    answer = trained.generate(torch.tensor([pair[0]]), max_new_tokens=len(pair[1]), do_sample=False)
    assert answer[0, len(pair[0]) :].tolist() == pair[1]


def test_the_learning_rate_warms_up_and_ends_where_it_should():
    config = SupervisedConfig(steps=100, learning_rate=1.0, final_share=0.1, warmup_steps=10)
    assert learning_rate(config, 0) == pytest.approx(0.1)
    assert learning_rate(config, 10) == pytest.approx(1.0)
    assert learning_rate(config, 100) == pytest.approx(0.1)
