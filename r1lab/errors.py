"""The one error that means: your input is wrong, and here is what to do."""


class InputError(ValueError):
    """Bad input, explained in one sentence. The command line prints it and exits with code 2."""
