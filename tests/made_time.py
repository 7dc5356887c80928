"""A clock that stands still until a test moves it, so that no test depends on how fast or how busy the machine is."""


class Time:
    """Stands in for the module `time`.

    Attributes:
        now: seconds that every clock shows.
    """

    def __init__(self, now: float = 0.0) -> None:
        self.now = now

    def monotonic(self) -> float:
        return self.now

    def perf_counter(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
