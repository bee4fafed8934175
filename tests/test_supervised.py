"""The supervised loop: which tokens are learned, the loss, the schedule. Resuming: test_sft.py."""

import pytest
import torch

from r1lab.models.policy import Policy, load_model
from r1lab.world.bases import build_model, build_tokenizer
from r1lab.training.distributed import World
from r1lab.training.processes import StopRequest
from r1lab.run import Run
from r1lab.training.supervised import (
    SupervisedConfig, document_loss, learned_tokens, learning_rate, train_supervised,
)  # fmt: skip

TOKENIZER = build_tokenizer()


def test_prompts_are_learned_in_pretraining_and_left_out_of_fine_tuning():
    prompts, ends = torch.tensor([2, 3]), torch.tensor([5, 4])
    assert learned_tokens(prompts, ends, 5, True).tolist() == [
        [False, True, True, True, True],
        [False, True, True, True, False],
    ]
    assert learned_tokens(prompts, ends, 5, False).tolist() == [
        [False, False, True, True, True],
        [False, False, False, True, False],
    ]


@pytest.mark.parametrize("learn_prompts", [True, False])
def test_the_loss_is_the_negative_log_likelihood_of_what_is_learned(learn_prompts):
    torch.manual_seed(0)
    model = build_model("tiny", len(TOKENIZER))
    prompts, ends = torch.tensor([2, 4]), torch.tensor([6, 5])
    ids = torch.randint(3, 200, (2, 6))
    mask = learned_tokens(prompts, ends, 6, learn_prompts)
    logps = model(ids).logits.log_softmax(-1)[:, :-1].gather(-1, ids[:, 1:, None])[..., 0]
    expected = -(logps * mask[:, 1:]).sum()
    assert document_loss(Policy(model), ids, mask).item() == pytest.approx(expected.item(), rel=1e-5)


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
