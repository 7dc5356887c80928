"""Lines that a run tells people."""


class Lasting(str):
    """A line that stays on the screen, where others are drawn over by the next one: a warning, or what a person waits for."""

    __slots__ = ()
