#!/usr/bin/env bash
# pytest 9.2.0 with pytest-xdist 3.8.0: `--dist loadgroup` groups nothing, and says so
# nowhere. pytest-xdist appends the group's name to `item._nodeid`, which pytest 9.2.0
# does not read any more (`nodeid` is computed). With pytest 9.1.1 each group runs in one
# process, and its tests' names end in "@" and the group; `--dist loadfile`, which reads
# names only, works with both.
#
# Seen: names that end in a group's, of 8 tests: 8 with pytest 9.1.1, 0 with 9.2.0.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
cat > "$folder/test_groups.py" << 'END'
import pytest


@pytest.mark.parametrize("case", range(4))
@pytest.mark.xdist_group("first")
def test_one(case):
    assert case < 4


@pytest.mark.parametrize("case", range(4))
@pytest.mark.xdist_group("second")
def test_other(case):
    assert case < 4
END
cd "$folder"
seen=$(for version in 9.1.1 9.2.0; do
  venv/bin/pip install --quiet "pytest==$version" pytest-xdist==3.8.0
  venv/bin/python -m pytest -n 2 --dist loadgroup -v test_groups.py > log
  grep -q "8 passed" log
  grep -cE "PASSED .*@(first|second)" log || true
done | xargs)
echo "names with a group: $seen"
test "$seen" = "8 0"
