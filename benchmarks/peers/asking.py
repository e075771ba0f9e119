"""A tool in a process of its own; see `worker.py`."""

import contextlib
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import threading

SCRIPT = pathlib.Path(__file__).parent / "worker.py"
MOST_SECONDS = 1200.0  # For one answer.


class Worker:
    """One tool and configuration on one workload.

    Args:
        tool, configuration, workload: Names.
        environment: Mapping, what is added to the environment.
        script: Path of the `worker.py` that is run, such as that of another checkout.
    """

    def __init__(self, tool, configuration, workload, environment=None, script=SCRIPT):
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115, closed by `close`.
        self._process = subprocess.Popen(
            [sys.executable, script, tool, configuration, workload],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            env=os.environ | (environment or {}),
        )

    def ask(self, command):
        """The answer; raises a `RuntimeError` that says what went wrong."""
        late = threading.Timer(MOST_SECONDS, self._process.kill)
        late.start()
        try:
            self._process.stdin.write(command + "\n")
            self._process.stdin.flush()
            answer = self._process.stdout.readline()
        except BrokenPipeError:
            answer = ""
        finally:
            late.cancel()
        if not answer:
            raise RuntimeError(self._fate())
        return json.loads(answer)

    def _fate(self):
        status = self._process.wait()
        if status < 0:
            name = signal.Signals(-status).name
            return f"ended by {name}: short of memory, or past {MOST_SECONDS:.0f} s"
        self._log.seek(0)
        lines = [line for line in self._log.read().splitlines() if line.strip()]
        return lines[-1] if lines else "it ended without a word"

    def close(self):
        with contextlib.suppress(BrokenPipeError):  # It ended before.
            self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()
        self._log.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
