"""The order of steps that all examples follow.

An example is three modules in a folder of its own: run.py has the flags and loads the
data, experiment.py compares the methods, report.py tells what they came to.
"""

import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

from absl import flags

from examples.common import command_line, output

FLAGS = flags.FLAGS


class Experiment(Protocol):
    """What an example's experiment.py has."""

    @property
    def Settings(self) -> type[NamedTuple]:  # noqa: N802, a class.
        """Its fields are the flags of the same names."""

    def compare(self, data: Any, settings: Any, verbose: int, /) -> Any:
        """Runs all methods; returns whatever report.py understands."""


class Report(Protocol):
    """What an example's report.py has."""

    def summarize(self, outcome: Any, flags: dict[str, Any], /) -> dict[str, Any]:
        """What results.json holds, from what `compare` returned and the flags."""

    def table(self, results: dict[str, Any], /) -> str:
        """What `summarize` returned, as text."""

    def draw(
        self, outcome: Any, results: dict[str, Any], folder: pathlib.Path, /
    ) -> list[pathlib.Path]:
        """Writes the pictures to a folder; returns their paths."""


def run(
    load: Callable[[], Any],
    start: Callable[[Any], None],
    modules: Callable[[], tuple[Experiment, Report]],
    writes: Callable[[dict[str, Any]], bool] = lambda results: True,
) -> None:
    """Runs an example from the command line, and ends the program.

    Args:
        load: Gives the data. The `ValueError` or `OSError` that it raises ends the
            program with one line.
        start: Is called with the data, before anything that takes long.
        modules: Imports experiment.py and report.py, and with them TensorFlow.
        writes: Whether this process writes to --output_dir, called with the results.
    """

    def follow(argv: list[str]) -> None:
        data, folder = command_line.begin(argv, load)
        start(data)
        # Only now, since it takes seconds: wrong flags and missing data are reported
        # at once.
        experiment, report = modules()
        settings = command_line.settings(experiment.Settings)
        outcome = experiment.compare(data, settings, FLAGS.verbose)
        results = report.summarize(outcome, command_line.values())
        print(report.table(results), flush=True)
        if writes(results):
            paths = [
                output.save(results, folder),
                *report.draw(outcome, results, folder),
            ]
            print("Wrote " + ", ".join(str(path) for path in paths))

    command_line.run(follow)
