"""The two kinds of failure a person can cause or meet; everything else is a defect and keeps its traceback."""


class LoopkitError(ValueError):
    """Something outside the program is wrong: a file, a device, a checkpoint. One line, names cause and remedy."""

    exit_code = 1


class UsageError(LoopkitError):
    """The request itself is wrong: a plan that does not parse, a range outside the model, an unknown name."""

    exit_code = 2
