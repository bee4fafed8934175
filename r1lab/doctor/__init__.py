"""Is it learning, and why not? What is wrong with this machine, this model, this run."""

from r1lab.doctor.command import diagnose, environment_report, judge, try_two_steps
