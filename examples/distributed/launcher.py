"""Starts several workers of one cluster on this machine."""

import json
import os
import socket
import subprocess
import sys
import threading
import time

_MARK = "STARTED_BY_LAUNCHER"
# How long the others may take to notice that a worker has died.
_GRACE_SECONDS = 60


def is_worker() -> bool:
    """Whether this process was started as one of a cluster."""
    return _MARK in os.environ


def check_configuration() -> None:
    """Raises a `ValueError` if TF_CONFIG does not say which worker this is."""
    value = os.environ["TF_CONFIG"]
    try:
        configuration = json.loads(value)
        task = configuration["task"]
        addresses = configuration["cluster"][task["type"]]
        known = isinstance(addresses, list) and 0 <= task["index"] < len(addresses)
    except (ValueError, LookupError, TypeError):
        known = False
    if not known:
        raise ValueError(
            'TF_CONFIG must be JSON: {"cluster": {"worker": [addresses]}, "task": '
            '{"type": "worker", "index": place of this one among them}}. Received: '
            f"{value}"
        )


def end_with_launcher() -> None:
    """Lets a worker end when its launcher does, however that ends.

    Its standard input is a pipe from the launcher, which closes then.
    """

    def wait() -> None:
        sys.stdin.read()
        os._exit(1)

    if is_worker():
        threading.Thread(target=wait, daemon=True).start()


def launch(num_workers: int) -> int:
    """Runs this command line in several processes, and waits for them.

    Each gets its place in the cluster by TF_CONFIG, and its output is shown behind
    its name. Where one fails, the others have a minute to end.

    Args:
        num_workers: Integer.

    Returns:
        The exit status: 0 if all ended well.
    """
    addresses = [f"127.0.0.1:{port}" for port in _free_ports(num_workers)]
    workers = [_start(index, addresses) for index in range(num_workers)]
    readers = [
        threading.Thread(target=_show, args=(index, worker))
        for index, worker in enumerate(workers)
    ]
    for reader in readers:
        reader.start()
    try:
        _wait(workers)
    finally:
        for worker in workers:
            if worker.poll() is None:
                worker.kill()
        for reader in readers:
            reader.join()
    statuses = [worker.wait() for worker in workers]
    failed = [index for index, status in enumerate(statuses) if status]
    if failed:
        print(f"Workers {failed} failed, with statuses {statuses}.", file=sys.stderr)
    return int(bool(failed))


def _free_ports(count: int) -> list[int]:
    """Ports that nothing listens on now."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()


def _start(index: int, addresses: list[str]) -> subprocess.Popen[str]:
    task = {"type": "worker", "index": index}
    cluster = {"cluster": {"worker": addresses}, "task": task}
    return subprocess.Popen(
        [sys.executable, *sys.argv],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "TF_CONFIG": json.dumps(cluster), _MARK: "1"},
    )


def _show(index: int, worker: subprocess.Popen[str]) -> None:
    for line in worker.stdout:
        print(f"[worker {index}] {line}", end="", flush=True)


def _wait(workers: list[subprocess.Popen[str]]) -> None:
    """Until all have ended, or a minute after one failed."""
    deadline = None
    while any(worker.poll() is None for worker in workers):
        if deadline is None and any(worker.poll() for worker in workers):
            deadline = time.monotonic() + _GRACE_SECONDS
        if deadline is not None and time.monotonic() > deadline:
            return
        time.sleep(0.1)
