"""Takes away what Linux has and macOS has not, in every process that starts with this folder on PYTHONPATH.

Python loads a module of this name by itself, in workers and notebooks' kernels, too. What other libraries
see of the system stays as it is.
"""

import os
import resource
import sys
from importlib.machinery import SourceFileLoader
from pathlib import Path


class Mac:
    """The module `sys` as the package sees it on a Mac."""

    platform = "darwin"

    def __getattr__(self, name):
        return getattr(sys, name)


def missing(*_, **__):
    raise OSError("not on this system")


def without_linux_files(method, answer):
    def call(self, *args, **options):
        return answer() if str(self).startswith(("/proc", "/sys")) else method(self, *args, **options)

    return call


def exec_module(loader, module, run=SourceFileLoader.exec_module):
    run(loader, module)
    if module.__name__.startswith("r1lab.") and hasattr(module, "sys"):
        module.sys = Mac()


def setrlimit(kind, limits, real=resource.setrlimit):
    if kind == resource.RLIMIT_AS:
        raise ValueError("current limit exceeds maximum limit")
    real(kind, limits)


del os.sched_getaffinity, os.sched_setaffinity, os.memfd_create
os.fork = missing  # a Mac has it, but it is not safe there in a process with threads
resource.setrlimit = setrlimit
sys.modules["triton"] = None
for name, answer in {"exists": bool, "is_file": bool, "read_text": missing}.items():
    setattr(Path, name, without_linux_files(getattr(Path, name), answer))
SourceFileLoader.exec_module = exec_module
