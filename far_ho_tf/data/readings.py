"""What has been read of a dataset, so that it can be read again."""

from collections.abc import Iterable, Iterator


class Readings:
    """One reading after another: first step, steps in a chunk, chunks taken.

    Runs that start from Φ_0 each time read the same again and again, so equal
    readings are kept once, with their number.

    Args:
        record: What `record` returned; none for nothing.

    Example:

    >>> readings = Readings()
    >>> for _ in range(3):
    ...     readings.begin(first_step=0, num_steps=5)
    ...     readings.take()
    >>> readings.record()
    [[0, 5, 1, 3]]
    >>> list(Readings([[0, 5, 1, 3]]))
    [(0, 5, 1), (0, 5, 1), (0, 5, 1)]
    """

    def __init__(self, record: Iterable[Iterable[int]] = ()) -> None:
        self._runs = [list(run) for run in record]

    def begin(self, first_step: int, num_steps: int) -> None:
        """Notes that a new iterator reads from a step on."""
        self._runs = self.record()
        self._runs.append([first_step, num_steps, 0, 1])

    def take(self) -> None:
        """Notes that it has read one more chunk."""
        self._runs[-1][2] += 1

    def record(self) -> list[list[int]]:
        """A list of lists of integers: the three of a reading, and how many."""
        runs = [list(run) for run in self._runs[-2:]]
        if len(runs) == 2 and runs[0][:3] == runs[1][:3]:
            runs = [[*runs[0][:3], runs[0][3] + runs[1][3]]]
        return self._runs[:-2] + runs

    def __iter__(self) -> Iterator[tuple[int, ...]]:
        for *reading, times in self._runs:
            yield from [tuple(reading)] * times
