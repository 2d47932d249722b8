"""The error that tells a user what to change."""

#: what a user without the data or the weights can do, for the end of a sentence
DEMO_HINT = "`mlcil demo` (in a checkout `sh train_mlcil_coco.sh --demo`) needs no download"


class UserError(ValueError):
    """A mistake of the user: its message names what was found, what was expected and what to do.

    The command line prints the message as one line and exits with code 2.
    """


class StoppedError(KeyboardInterrupt):
    """A run was asked to stop by a signal.

    Args:
        number: of the signal.
        sentence: where the run stands and how it goes on.
    """

    def __init__(self, number: int, sentence: str = "") -> None:
        self.number = int(number)
        super().__init__(sentence)
