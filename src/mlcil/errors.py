"""The error that tells a user what to change."""


class UserError(ValueError):
    """A mistake of the user: its message names what was found, what was expected and what to do.

    The command line prints the message as one line and exits with code 2.
    """
