"""The one exception type for mistakes a user can mend. Anything else that is raised is our bug."""


class RagFtError(Exception):
    """A user's mistake: what was given, why it cannot work, the literal key or command to change.

    The command line prints the message and leaves with exit code 2, without a traceback.
    """
