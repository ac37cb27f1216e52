#!/bin/sh
# Makes what the comparisons with llama.cpp need, all from what PyPI carries:
# a virtual environment with llama-cpp-python and the gguf package, and llama-server, llama-bench and llama-batched-bench.
# llama.cpp is compiled once, from the sources inside llama-cpp-python's archive, for this machine (Release, without the
# web page); the environment and the programs share its libraries.
# On a machine with AMX clang compiles them, which Debian's packages clang and libomp-dev install, with the instruction sets named one by
# one: GCC before 12.4 drops the stores of the tile configuration that llama.cpp loads (GCC's PR 114098), and what it makes dies of an
# illegal instruction; clang 14 neither finds AMX by itself nor defines the names that llama.cpp asks for.
# With an instruction set (avx2 or avxvnni) it is compiled for machines that have no more, for all.py --isa.
#
# usage: setup.sh VENV_DIR BIN_DIR [JOBS [ISA]]      needs python3, a C++ compiler, and about half an hour of one core
set -eu
[ $# -ge 2 ] || { echo "usage: setup.sh VENV_DIR BIN_DIR [JOBS [ISA]]" >&2; exit 2; }
machine=-DGGML_NATIVE=ON
if [ -n "${4:-}" ]; then
    case $4 in
    avx2) machine=-DGGML_NATIVE=OFF ;;
    avxvnni) machine="-DGGML_NATIVE=OFF -DGGML_AVX_VNNI=ON" ;;
    *) echo "setup.sh: $4 is neither avx2 nor avxvnni" >&2; exit 2 ;;
    esac
elif grep -qw amx_int8 /proc/cpuinfo; then
    command -v clang++ >/dev/null || { echo "setup.sh: this machine has AMX: apt-get install clang libomp-dev" >&2; exit 1; }
    export CC=clang CXX=clang++ CFLAGS="-D__AMX_TILE__=1 -D__AMX_INT8__=1" CXXFLAGS="-D__AMX_TILE__=1 -D__AMX_INT8__=1"
    machine=-DGGML_NATIVE=OFF
    for set in AVX_VNNI AVX512 AVX512_VBMI AVX512_VNNI AVX512_BF16 AMX_TILE AMX_INT8 AMX_BF16; do
        machine="$machine -DGGML_$set=ON"
    done
fi
venv=$1 bin=$2 jobs=${3:-1}
here=$(cd "$(dirname "$0")" && pwd)
pin=$(grep '^llama-cpp-python==' "$here/requirements.txt")

python3 -m venv "$venv"
venv=$(cd "$venv" && pwd)
mkdir -p "$bin"
bin=$(cd "$bin" && pwd)
"$venv/bin/pip" install cmake ninja
PATH="$venv/bin:$PATH"
export PATH

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
pip download --no-binary llama-cpp-python --no-deps --dest "$work" "$pin"
tar xzf "$work"/llama_cpp_python-*.tar.gz -C "$work"
rm "$work"/llama_cpp_python-*.tar.gz
source=$(echo "$work"/llama_cpp_python-*)
commit=$(sed -n 's/.*update llama.cpp to .*@\([0-9a-f]*\).*/\1/p' "$source/CHANGELOG.md" | head -1)

cmake -G Ninja -S "$source/vendor/llama.cpp" -B "$work/build" \
    -DCMAKE_BUILD_TYPE=Release $machine -DBUILD_SHARED_LIBS=ON \
    -DCMAKE_BUILD_WITH_INSTALL_RPATH=ON '-DCMAKE_INSTALL_RPATH=$ORIGIN' \
    -DLLAMA_BUILD_COMMIT="$commit" -DLLAMA_BUILD_NUMBER=0 \
    -DLLAMA_BUILD_UI=OFF -DLLAMA_USE_PREBUILT_UI=OFF -DLLAMA_OPENSSL=OFF \
    -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_BUILD_APP=OFF
cmake --build "$work/build" --parallel "$jobs" --target llama-bench llama-batched-bench llama-server
cp -a "$work"/build/bin/. "$bin"

CMAKE_ARGS="-DLLAMA_BUILD=OFF -DLLAVA_BUILD=OFF" pip install -r "$here/requirements.txt"
lib=$(python -c 'import sysconfig; print(sysconfig.get_path("platlib"))')/llama_cpp/lib
mkdir -p "$lib"
cp -a "$work"/build/bin/*.so* "$lib"

python -c 'import llama_cpp; print(llama_cpp.llama_print_system_info().decode())'
"$bin/llama-server" --version
