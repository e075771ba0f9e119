"""Programs that equal problems of a process have in common."""

import collections

# Programs that are kept for problems that may come; the eldest goes first.
_MOST = 16

_kept = collections.OrderedDict()


def forget():
    """Keeps nothing of the problems so far."""
    _kept.clear()


def shared(signature, key, trace):
    """An `Executable`: that of an equal problem, or a new one.

    What is kept holds no graph, and none of the tensors that the problem captures:
    each problem brings its own.

    Args:
        signature: The `preflight.Signature` of the problem.
        key: Hashable: all that the program depends on besides the problem.
        trace: Callable() -> `Executable`.
    """
    if signature.key is None:
        return trace()
    key = signature.key, key
    if key in _kept:
        _kept.move_to_end(key)
        executable, places = _kept[key]
        return executable.with_captures([signature.captures[n] for n in places])
    executable = trace()
    known = {id(tensor): place for place, tensor in enumerate(signature.captures)}
    places = [known.get(id(tensor)) for tensor in executable.captures]
    if None not in places:
        _kept[key] = executable.with_captures([]), places
        if len(_kept) > _MOST:
            _kept.popitem(last=False)
    return executable
