"""Placeholder until the doors for other people's tasks are in."""
from r1lab.task import Task


def load_task(task, test="", template="", rewards=()) -> Task:
    return task
