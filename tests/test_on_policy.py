"""On-policy distillation: its gradient against an exact one, and what the teacher's word reaches."""

from dataclasses import replace

import pytest
import torch
from on_policy import OnPolicyDistillation, grades
from tabular import Tree, gradient

from r1lab.errors import InputError
from r1lab.models.policy import save_model
from r1lab.objective import LossConfig, policy_loss
from r1lab.training.distributed import World
from tests.test_chat_templates import made
from tests.test_tabular import table
from tests.test_training import SMALL, TOKENIZER, FakeWorld, ragged_experience, task, tiny_policy, update

TREE = Tree()
CONFIG = replace(SMALL, loss=replace(SMALL.loss, beta=0.0))


@pytest.fixture(scope="module")
def teacher(tmp_path_factory) -> str:
    """A model like the student, with weights of its own."""
    folder = tmp_path_factory.mktemp("teacher")
    other = tiny_policy().model
    torch.manual_seed(7)
    for parameter in other.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    save_model(other, TOKENIZER, folder)
    return str(folder)


def learner(teacher: str, world: World = World()) -> OnPolicyDistillation:
    return OnPolicyDistillation(CONFIG, task(), tiny_policy(), TOKENIZER, world, teacher=teacher)


def tree_grades(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """Of every token of every completion of the tree, 0 after its last."""

    def rows(logits: torch.Tensor) -> list[torch.Tensor]:
        return [logps[mask] for logps, mask in zip(TREE.logps(logits), TREE.mask, strict=True)]

    return grades(rows(student), rows(teacher))


def test_the_gradient_is_that_of_the_reverse_kl_in_the_states_that_the_student_visits():
    student, teacher = table(1), table(2).detach()
    sampler = student.detach()
    chances = TREE.probabilities(sampler)
    logps = TREE.logps(student)
    advantages = tree_grades(sampler, teacher) * chances[:, None]
    loss = policy_loss(
        logps, logps.detach(), None, advantages, TREE.mask, LossConfig(beta=0.0), normalizer=1.0
    )[0]
    ours, theirs = student.log_softmax(-1), teacher.log_softmax(-1)
    divergence = TREE.at_states((ours.exp() * (ours - theirs)).sum(1)).sum(1)
    exact = gradient((chances * divergence).sum(), student)
    assert torch.allclose(gradient(loss, student), exact, atol=1e-12) and exact.norm() > 0.1


def test_a_grades_mean_is_minus_the_kl_and_the_teacher_itself_has_nothing_to_learn():
    student, teacher = table(3).detach(), table(4).detach()
    mean = TREE.mean(student, tree_grades(student, teacher).sum(1))
    assert mean.item() == pytest.approx(-TREE.kl(student, teacher).item())
    assert (tree_grades(teacher, teacher) == 0).all()


def test_one_completions_estimates_scatter_around_the_exact_gradient():
    student, teacher = table(5), table(6).detach()
    sampler, count = student.detach(), 20_000
    drawn = TREE.sample(student, (count,), torch.Generator().manual_seed(0))
    logps, mask = TREE.logps(student)[drawn], TREE.mask[drawn]
    loss = policy_loss(
        logps, logps.detach(), None, tree_grades(sampler, teacher)[drawn], mask,
        LossConfig(beta=0.0), normalizer=float(count),
    )[0]  # fmt: skip
    ours, theirs = student.log_softmax(-1), teacher.log_softmax(-1)
    divergence = TREE.at_states((ours.exp() * (ours - theirs)).sum(1)).sum(1)
    exact = gradient((TREE.probabilities(sampler) * divergence).sum(), student)
    assert (gradient(loss, student) - exact).norm() < 0.05 * exact.norm()


def test_the_loss_gets_each_tokens_own_grade(teacher):
    one, given = learner(teacher), []
    one.loss = lambda *args, **options: given.append(args[3]) or policy_loss(*args, **options)
    experience = ragged_experience(CONFIG)
    experience.advantages = one.advantage(experience)
    said = one.scored(one.teacher, experience, minibatches=1)
    one.add_loss(experience, [2])
    expected = said[2] - experience.old_logps[2]
    assert torch.allclose(given[0][0], expected, atol=1e-6) and expected.abs().max() > 0.01
    assert experience.advantages.flatten()[2].item() == pytest.approx(expected.mean().item(), abs=1e-5)


class OtherHasSaid(FakeWorld):
    """The last of two processes: what the first one said is already there."""

    def gather(self, value):
        return [self.said, value]


def test_one_and_two_processes_give_the_same_grades_and_gradients(teacher):
    experience = ragged_experience(CONFIG)
    scored = learner(teacher).scored(tiny_policy(), experience, minibatches=1)
    experience.old_logps = [scored[row] for row in sorted(scored)]
    single, first, second = (learner(teacher, FakeWorld(*place)) for place in ((0, 1), (0, 2), (1, 2)))
    second.world = OtherHasSaid(1, 2)
    object.__setattr__(second.world, "said", first.scored(first.teacher, experience, 1))
    experience.advantages = single.advantage(experience)
    second.advantage(experience)
    first.token_grades = second.token_grades
    assert torch.allclose(single.token_grades, second.token_grades, atol=1e-5)
    parts = []
    for one in (single, first, second):
        one.world = FakeWorld(one.world.rank, one.world.size)
        update(one, experience)
        parts.append(torch.cat([kept.flatten() for kept in one.policy.kept]))
    assert parts[0].abs().max() > 1e-3
    assert (parts[0] - parts[1] - parts[2]).abs().max() < 1e-6


def test_the_teacher_stays_as_it_is_and_its_reading_is_counted(teacher):
    one = learner(teacher)
    experience = ragged_experience(CONFIG)
    before = [parameter.clone() for parameter in one.teacher.parameters()]
    experience.advantages = one.advantage(experience)
    one.follow_gradient(one.add_loss(experience, [0, 1, 2]))
    assert all(map(torch.equal, before, one.teacher.parameters()))
    weights = one.policy.model.num_parameters()  # the teacher has as many
    assert one.flops(experience) == (6 + 2 + 2) * weights * sum(experience.lengths)


def test_a_teacher_with_other_tokens_is_refused(tmp_path):
    save_model(tiny_policy().model, made("qwen"), tmp_path / "other")
    with pytest.raises(InputError, match="other tokens"):
        learner(str(tmp_path / "other"))
