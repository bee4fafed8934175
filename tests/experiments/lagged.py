"""Rollouts of an earlier policy, as asynchronous sampling gives them."""

import copy
from itertools import pairwise

from r1lab.training.config import SAMPLING_FLOPS
from r1lab.training.loop import Learner
from r1lab.training.rollout import Experience


class LaggedLearner(Learner):
    """Draws each rollout from the policy as it was `lag` rollouts before; what that changes is weighed
    in the loss as a sampler's drift is."""

    lags = True

    def __init__(self, config, task, policy, *others, lag: int, **options):
        earlier = [copy.deepcopy(policy).requires_grad_(False) for _ in range(lag)]
        super().__init__(config, task, policy, *others, **options)
        self.line = [policy, *(self.world.place(one, trained=False, dtype=self.dtype) for one in earlier)]
        self.modules |= {f"earlier_{ago}": one for ago, one in enumerate(earlier, start=1)}

    def refresh_sampler(self) -> None:
        """Before each rollout: sample from the oldest policy, and let each take the place of the next."""
        self.sample_from(self.line[-1])
        for newer, older in reversed(list(pairwise(self.line))):
            older.load_state_dict(newer.state_dict())

    def flops(self, experience: Experience) -> int:
        """The policy reads each answer once more."""
        weights = self.policy.model.num_parameters()
        return super().flops(experience) + SAMPLING_FLOPS * weights * sum(experience.lengths)
