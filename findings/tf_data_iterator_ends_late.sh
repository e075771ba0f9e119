#!/usr/bin/env bash
# TensorFlow 2.21.0, CPU: the end of a tf.data iterator waits for the thread that tunes it
# (`RootDataset::Iterator`, whose destructor joins it). That thread sleeps for a period
# that doubles up to a minute, and is woken to stop; now and then it misses that and
# sleeps on. The wait is in the deallocation of the Python object, with the interpreter
# held: also where the garbage collector frees an iterator, in any later line of Python.
# Without tuning (`options.autotune.enabled = False`) none waits.
#
# Seen: of 40 iterators that lived 8 s (they are freed one by one), some took seconds to
# free, up to 60 s; of 40 without tuning none took a tenth of a second. The script stops
# at the first that takes more than 1 s, and so needs half a minute to two; three attempts.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet tensorflow==2.21.0
cat > "$folder/script.py" << 'END'
import os
import time

import tensorflow as tf

kept = []


def longest(tuned):
    """Seconds that the end of one of 40 iterators takes at most, or the first above 1."""
    options = tf.data.Options()
    options.autotune.enabled = tuned
    dataset = tf.data.Dataset.range(100).map(lambda x: x + 1).batch(4)
    iterators = [iter(dataset.with_options(options)) for _ in range(40)]
    kept.append(iterators)  # The end of the others is not waited for.
    for iterator in iterators:
        assert next(iterator).numpy().tolist() == [1, 2, 3, 4]
    del iterator
    time.sleep(8)
    found = 0.0
    while iterators and found < 1:
        begin = time.perf_counter()
        iterators.pop()
        found = max(found, time.perf_counter() - begin)
    return found


untuned = longest(False)
for _ in range(3):
    tuned = longest(True)
    if tuned > 1:
        break
print(f"longest end: {untuned:.3f} s without tuning, {tuned:.1f} s with it", flush=True)
os._exit(0 if untuned < 0.5 and tuned > 1 else 1)  # Without waiting for the others.
END
TF_CPP_MIN_LOG_LEVEL=3 "$folder/venv/bin/python" "$folder/script.py"
