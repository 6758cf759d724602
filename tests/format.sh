#!/usr/bin/env bash
# Sources are as .clang-format lays them out; only the version that the tree is written with can say.
set -euo pipefail
cd "$(dirname "$0")/.."
formatter=
for candidate in clang-format-14 clang-format; do
    if command -v "$candidate" >/dev/null && "$candidate" --version | grep -q 'version 14\.'; then
        formatter=$candidate
        break
    fi
done
if [ -z "$formatter" ]; then
    echo 'no clang-format 14 here: not checked'
    exit 77
fi
status=0
while read -r file; do
    if [ -e "$file" ] && ! "$formatter" --dry-run -Werror "$file" 2>/dev/null; then
        echo "not as clang-format writes it: $file"
        status=1
    fi
done < <(git ls-files '*.c' '*.h' '*.cc')
exit "$status"
