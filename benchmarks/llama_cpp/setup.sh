#!/bin/sh
# Makes a virtual environment with llama.cpp (built for this machine by llama-cpp-python) and the gguf package.
# usage: setup.sh VENV_DIR [JOBS]          needs python3, a C++ compiler, and about 20 minutes of one core
set -eu
venv=$1
python3 -m venv "$venv"
"$venv/bin/pip" install cmake ninja
PATH="$venv/bin:$PATH" CMAKE_BUILD_PARALLEL_LEVEL="${2:-1}" \
CMAKE_ARGS="-DGGML_NATIVE=ON -DLLAVA_BUILD=OFF" \
    "$venv/bin/pip" install -r "$(dirname "$0")/requirements.txt"
