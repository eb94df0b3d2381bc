"""The messages that a user is meant to read: the error that ends a run, and the notice that does not."""

# What a training step says of a loss or of labels that it cannot train with.
ONE_VALUE_PER_EXAMPLE = (
    "loss must give one value per example: make it with reduction='none', "
    "and pass labels that are class numbers of shape (n,)"
)


class UserError(Exception):
    """Something the user can put right: one line that names the problem and the way out.

    A file of weights with several faults has a line more for each. ``run.py`` prints the message without a traceback
    and ends with exit code 2. Anything else that escapes is a defect of this project and keeps its traceback.
    """


class UserNotice(UserWarning):
    """Something that the user should know, and that goes on: ``run.py`` prints it as one line on standard error."""
