"""Checks in processes of their own, whose results are kept in a file, line by line.

What ends a process, or takes too long, is noted and passed over: TensorFlow and XLA
crash on some functions.
"""

import importlib.metadata
import json
import os
import subprocess
import sys
import time


def versions():
    """Those of the releases that results are about."""
    return {name: importlib.metadata.version(name) for name in ("tensorflow", "keras")}


def read(results, part):
    """{case: line} of the releases that are installed; a case's last line counts."""
    if not results.exists():
        return {}
    lines = [json.loads(line) for line in results.read_text().splitlines()]
    return {
        line["case"]: line
        for line in lines
        if line["part"] == part and line["versions"] == versions()
    }


def note(results, part, case, checks, seconds=0.0):
    """Adds a line to the file of results."""
    line = {
        "part": part,
        "case": case,
        "versions": versions(),
        "date": time.strftime("%Y-%m-%d"),
        "seconds": round(seconds, 2),
        "checks": checks,
    }
    with results.open("a") as file:
        file.write(json.dumps(line) + "\n")


def of_part(part, names, results):
    """Those cases that a part looks at.

    A loop at the first point of each row; problems and TensorFlow as it is where there
    is a derivative.
    """
    if part == "operations":
        return names
    if part == "loops":
        first = {}
        for name in names:
            first.setdefault(name.split(" @ ")[0], name)
        return list(first.values())
    found = read(results, "operations")
    return [n for n in names if _has_derivative(found.get(n, {}).get("checks", {}))]


def _has_derivative(checks):
    """Whether differences tell of no kink, nor of a function that gives no value."""
    if "row" in checks:
        return False
    return checks.get("differences", {}).get("status") != "kink"


def sweep(command, part, names, results, limit):
    """Checks cases in one process, and those that end it once more by themselves.

    Args:
        command: List of strings, to which the names are added: prints each name as it
            begins with it, and notes its result.
        part: Name.
        names: List of cases.
        results: Path of the file of results.
        limit: Seconds for a case.
    """
    while names:
        ended, begun = run(command, names, limit)
        if ended is None:
            return
        if begun not in names:  # Not even the first.
            for name in names:
                note(results, part, name, {"process": {"status": ended}})
            return
        if len(names) > 1:
            print(f"{begun}: {ended}; once more by itself", flush=True)
            sweep(command, part, [begun], results, limit)
        else:
            note(results, part, begun, {"process": {"status": ended}})
        names = names[names.index(begun) + 1 :]


def run(command, names, limit):
    """Runs a process; returns why it ended too early, or `None`, and the last case."""
    process = subprocess.Popen([*command, *names], stdout=subprocess.PIPE, text=True)
    os.set_blocking(process.stdout.fileno(), False)
    begun, since = None, time.monotonic()
    while True:
        line = process.stdout.readline()
        if line:
            begun, since = line.rstrip("\n"), time.monotonic()
        elif process.poll() is not None:
            code = process.returncode
            return (None if code == 0 else f"the process ended with {code}"), begun
        elif time.monotonic() - since > limit:
            process.kill()
            process.wait()
            return f"took more than {limit} s", begun
        else:
            time.sleep(0.05)


def work(part, names, results):
    """Checks cases in this process."""
    if part != "plain":
        import far_ho_tf  # noqa: F401 (it patches TensorFlow)
    from derivatives import checks, table

    rows = table.rows()
    for name in names:
        print(name, flush=True)
        start = time.process_time()
        row, point = name.split(" @ ")
        found = checks.check(part, rows[row], point)
        note(results, part, name, found, time.process_time() - start)


def command(part, results):
    """That of this tool for a process of a part."""
    tool = os.path.join(os.path.dirname(__file__), os.pardir, "derivative_sweep.py")
    return [sys.executable, tool, f"--child={part}", f"--results={results}", "--"]
