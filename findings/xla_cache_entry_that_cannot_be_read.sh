#!/usr/bin/env bash
# TensorFlow 2.21.0, CPU: an entry of the persistent XLA cache that is cut short (as by a
# disk that was full) is not compiled anew, but makes the call fail; and the process
# remembers that: after the entry is deleted, the same function fails again.
#
# Seen: "OutOfRangeError OutOfRangeError", for the call with the short entry and for the
# call after it was deleted.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet tensorflow==2.21.0
cat > "$folder/script.py" << 'END'
import os
import pathlib
import sys

cache = pathlib.Path(sys.argv[1])
os.environ["TF_XLA_FLAGS"] = (
    f"--tf_xla_persistent_cache_directory={cache} "
    "--tf_xla_persistent_cache_device_types=CPU"
)
import tensorflow as tf

compiled = tf.function(lambda x: tf.sin(x) + 2.0, jit_compile=True)
seen = []
for _ in range(2):
    try:
        compiled(tf.constant([0.5, 1.0]))
        seen.append("right")
    except tf.errors.OpError as error:
        seen.append(type(error).__name__)
    for entry in cache.iterdir():
        if "cut" in sys.argv[2:]:
            entry.unlink()
print(*seen)
END
mkdir "$folder/cache"
export TF_CPP_MIN_LOG_LEVEL=3
"$folder/venv/bin/python" "$folder/script.py" "$folder/cache" 2> /dev/null
for entry in "$folder"/cache/*; do truncate --size=1000 "$entry"; done
seen=$("$folder/venv/bin/python" "$folder/script.py" "$folder/cache" cut 2> /dev/null)
echo "seen: $seen"
test "$seen" = "OutOfRangeError OutOfRangeError"
