#!/usr/bin/env bash
# Training through Vulkan gives what it gives on the CPU: losses and gradients against torch's and PEFT's (golden files), then whole runs of
# `train base` and `train sft`, side by side with the CPU's.
#
#   tests/vulkan/run.sh            on the best device that the installed Vulkan drivers offer: a GPU, if there is one
#   tests/vulkan/run.sh --install  installs Mesa's software driver first, where there is none (as root, by apt-get)
#   VK_DRIVER_FILES=icd.json ...   on the device of this driver (an option of the Vulkan loader)
set -euo pipefail
cd "$(dirname "$0")/../.."

skip() {
    echo "tests/vulkan: skipped, $1"
    exit 0
}

# Drivers say where they are by files in the loader's folders.
driver() {
    compgen -G "/usr/share/vulkan/icd.d/*.json" >/dev/null || compgen -G "/etc/vulkan/icd.d/*.json" >/dev/null ||
        compgen -G "${XDG_DATA_HOME:-$HOME/.local/share}/vulkan/icd.d/*.json" >/dev/null || [[ -n ${VK_DRIVER_FILES:-} ]]
}

if ! driver && [[ ${1:-} == --install || -n ${VULKAN_INSTALL:-} ]]; then
    [[ $(id -u) == 0 ]] || skip "installing mesa-vulkan-drivers needs root"
    command -v apt-get >/dev/null || skip "no apt-get to install mesa-vulkan-drivers"
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends mesa-vulkan-drivers libvulkan1
fi
driver || skip "no Vulkan driver; see --install"

tests=(cargo test --locked -p edgethink-train --features vulkan)
"${tests[@]}" --lib -- golden:: device::
"${tests[@]}" --test it -- device:: --nocapture
echo "vulkan: losses, gradients and runs are the CPU's"
