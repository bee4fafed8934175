"""Runs Python programs that a model wrote, and says whether they pass their tests.

The rule: a program may run any machine code it likes in its own process, and must still gain
nothing. So nothing depends on Python's good manners (a patched builtin, a clever `__eq__`, a walk
over frames), only on two things outside of it:

1. What it can reach. Each program has a process of its own, forked from a clean one that holds no
   tests, no other programs and nothing of the trainer, as `nobody` where the trainer is root. There
   the kernel allows seventeen system calls (`zygote.SYSTEM_CALLS`): memory, time, random numbers,
   its own number, the end, and writing to one file that only the grader reads. Opening a file or a
   socket, making a process or a thread, sending a signal, tracing: each ends the process at once
   (`forbidden`). Computing time, memory, output and the wall clock are limited.
2. What it knows. It is given the inputs and must write the outputs. The expected ones never enter
   its process; `judge` compares outside, as plain data. A forged answer is only a wrong answer.

An honest program finds those parts of the standard library that compute on data in memory
(`zygote.MODULES`). Importing another part, such as `threading`, is `forbidden` with a sentence that
says why. This protects nothing: the kernel would end the program at its first use anyway.

Needed: Linux, libseccomp (`apt install libseccomp2`; most systems have it), and for root the right
to become `nobody`. A container's default settings allow it all. Each start tries what programs must
not be able to do, and refuses to run any if one of the tries succeeds.

Not defended against: faults of the kernel and of the processor; a program that slows the machine
within its limits; tests so weak that a wrong program passes them, by learning the shown examples by
heart; reading the inputs of all its tests before it answers the first.
"""

from r1lab.sandbox.pool import Limits, Outcome, Sandbox
