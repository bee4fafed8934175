"""RL and SFT in one loss: a learner that reads demonstrations in every update."""

import random
from collections import Counter

from r1lab.training.config import TRAINING_FLOPS
from r1lab.training.sft import fitting, load_documents
from r1lab.training.loop import Learner
from r1lab.training.rollout import Experience
from r1lab.training.supervised import Document, add_gradient


class TaughtLearner(Learner):
    """Each update adds the demonstrations' loss to that of RL, at temperature 1.

    That is the mean negative log-likelihood of the learned tokens of `rows` documents, times
    `weight`. Which documents depends on seed and step alone.

    Args:
        data: a folder of `datasets` with the columns prompt and completion.
    Raises:
        InputError: no data set is there, it is empty, or it is of another tokenizer.
    """

    def __init__(
        self, config, task, policy, tokenizer, world, *, data: str, weight: float, rows: int, **options
    ):
        super().__init__(config, task, policy, tokenizer, world, **options)
        documents = load_documents(data, tokenizer, task.template)
        self.documents = fitting(documents, policy.model.config.max_position_embeddings, data)
        self.weight, self.rows = weight, rows
        world.agree("demonstrations", self.documents)

    def demonstrations(self, step: int) -> list[Document]:
        """Drawn without putting back; the same on every process and after every resume."""
        count = min(self.rows, len(self.documents))
        return random.Random(f"{self.config.seed}/{step}").sample(self.documents, count)

    def add_loss(self, experience: Experience, rows: list[int]) -> Counter:
        """Also that of the step's demonstrations, and its gradient."""
        sums = super().add_loss(experience, rows)
        sums["demonstration_loss"] = add_gradient(
            self.config, self.policy, self.demonstrations(self.step), self.tokenizer, self.world,
            self.weight,
        )  # fmt: skip
        return sums

    def flops(self, experience: Experience) -> int:
        """Also those of the demonstrations, each token of which is learned from once."""
        steps = range(self.step - self.config.minibatches, self.step)
        tokens = [len(p) + len(c) for step in steps for p, c in self.demonstrations(step)]
        parameters = self.policy.model.num_parameters()
        return super().flops(experience) + TRAINING_FLOPS * parameters * sum(tokens)
