#!/usr/bin/env bash
# Makes a virtual environment, installs pancrafter, writes the demo scene, sharpens it, and says where the results are.
# Usage: ./examples/quickstart.sh [FOLDER]   (default: demo)
set -euo pipefail
folder=$(realpath -m "${1:-$(dirname "$0")/../demo}")
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
  echo "error: $("$python" --version) is too old" >&2
  echo "hint: pancrafter needs Python 3.11 or newer; set PYTHON to its path" >&2
  exit 2
}
[ -x .venv/bin/python ] || "$python" -m venv .venv
.venv/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[torch]'
.venv/bin/pancrafter demo "$folder" --overwrite
.venv/bin/pancrafter sharpen "$folder/pan.tif" "$folder/ms.tif" -o "$folder/sharp.tif" --overwrite
.venv/bin/pancrafter demo "$folder" --sharpened "$folder/sharp.tif" --overwrite
