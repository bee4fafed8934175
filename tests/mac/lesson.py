"""Run a lesson's cells with tiny settings: `python lesson.py NOTEBOOK`, in any folder.

Every model writes a few tokens only and trains two small steps, so that asserts, which are about what it
learned, are left out.
"""

import ast
import json
import sys
from dataclasses import replace
from pathlib import Path

import r1lab.lab  # finds what lies beside the lessons
import watched
from r1lab.sampling import torch_sampler

TINY = {"rollouts": 2, "questions": 2, "group_size": 4, "minibatches": 1, "caps": ((0, 16),)}


class WithoutAsserts(ast.NodeTransformer):
    def visit_Assert(self, node):
        return ast.copy_location(ast.Pass(), node)


def shorten(generate=torch_sampler.TorchSampler.generate, train=watched.train):
    def few_tokens(self, prompts, params, *rest, **options):
        return generate(self, prompts, replace(params, max_tokens=min(params.max_tokens, 16)), *rest, **options)

    torch_sampler.TorchSampler.generate = few_tokens
    watched.train = lambda model, task, config: train(model, task, replace(config, **TINY))


def main(notebook: str):
    shorten()
    names = vars(sys.modules["__main__"])
    cells = json.loads(Path(notebook).read_text(encoding="utf-8"))["cells"]
    for number, cell in enumerate(cells):
        if cell["cell_type"] == "code" and "interactive" not in cell["metadata"].get("tags", []):
            tree = WithoutAsserts().visit(ast.parse("".join(cell["source"])))
            exec(compile(tree, f"{notebook}, cell {number}", "exec"), names)
    print(f"{notebook}: ran to its end")


if __name__ == "__main__":
    main(sys.argv[1])
