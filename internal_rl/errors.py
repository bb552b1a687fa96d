"""The one exception a user is meant to see."""


class UserError(Exception):
    """The user asked for something impossible.

    The message is one line that names the field or path, its value and what is allowed. The command
    line prints it to stderr and exits with status 2; nothing has been written or deleted by then.
    """
