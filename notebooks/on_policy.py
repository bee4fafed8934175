"""On-policy distillation: the student writes, and the teacher grades every token of it.

The loop is GRPO's, and the advantage comes from two log-probs. This is generalized knowledge
distillation (arXiv 2306.13649) with the reverse KL, on texts that are all the student's own.
"""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from r1lab.errors import InputError
from r1lab.models.policy import load_policy
from r1lab.training.config import SAMPLING_FLOPS
from r1lab.training.loop import Learner
from r1lab.training.rollout import Experience, Row, gathered


def grades(student: list[Row], teacher: list[Row]) -> Float[Tensor, "rows column"]:
    """log p_teacher - log p_student of each token, 0 after a row's last.

    Its mean over the student's next tokens is minus KL(student || teacher) in that state, and as an
    advantage it gives this KL's gradient.
    """
    return pad_sequence([theirs - ours for ours, theirs in zip(student, teacher)], batch_first=True)


class OnPolicyDistillation(Learner):
    """Each token learns from its own grade alone; the task's rewards are only watched.

    Args:
        teacher: the folder of a model with the student's tokens, else InputError.
    """

    def __init__(self, config, task, policy, tokenizer, *others, teacher: str, **options):
        super().__init__(config, task, policy, tokenizer, *others, **options)
        reader, words = load_policy(teacher)
        if words.get_vocab() != tokenizer.get_vocab():
            raise InputError(f"{teacher} has other tokens than the student; give a teacher with the same.")
        reader.precision = self.dtype
        self.teacher = self.world.place(reader.requires_grad_(False), trained=False, dtype=self.dtype)

    def advantage(self, experience: Experience) -> Float[Tensor, "questions group"]:
        """A grade for each token; returns each completion's mean."""
        share = self.scored(self.teacher, experience, minibatches=1)
        teacher = [logps.cpu() for logps in gathered(self.world, share)]  # one for each completion
        self.token_grades = grades(experience.old_logps, teacher)
        lengths = torch.tensor([max(1, len(logps)) for logps in teacher])
        return (self.token_grades.sum(1) / lengths).view_as(experience.totals)

    def advantages_of(self, experience, rows, columns) -> Float[Tensor, "rows columns"]:
        return self.token_grades[rows, :columns]

    def flops(self, experience: Experience) -> int:
        """The teacher reads what the student has written, once."""
        weights = self.teacher.model.num_parameters()
        return super().flops(experience) + SAMPLING_FLOPS * weights * sum(experience.lengths)
