"""The one exception that a user is meant to read."""


class UserError(Exception):
    """Something the user can put right: one line that names the problem and the way out.

    ``run.py`` prints the message without a traceback and ends with exit code 2. Anything else that escapes is a
    defect of this project and keeps its traceback.
    """
