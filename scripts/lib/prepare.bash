# What the scripts need before they can start: Debian's packages, a Rust toolchain, a build.
# To be sourced; the caller has set -euo pipefail.
# shellcheck shell=bash

REPOSITORY=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
readonly REPOSITORY
readonly BUILD_PACKAGES=(gcc libc6-dev pkg-config libdpdk-dev libclang-dev clang libisal-dev)
readonly LAB_PACKAGES=(wireguard-go wireguard-tools iperf3 ethtool iproute2 iputils-ping procps jq python3)

say() {
    printf '%s\n' "$*" >&2
}

fail() {
    say "${0##*/}: $*"
    exit 1
}

# Installs those of the named Debian packages that are missing.
install_missing() {
    local package missing=()
    for package in "$@"; do
        dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q '^install ok installed' ||
            missing+=("$package")
    done
    ((${#missing[@]})) || return 0
    command -v apt-get >/dev/null || fail "please install: ${missing[*]}"
    [[ $EUID == 0 ]] || fail "please run as root: apt-get install ${missing[*]}"
    say "installing ${missing[*]}"
    {
        apt-get update -qq
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}"
    } >&2 </dev/null || fail "apt-get could not install: ${missing[*]}"
}

# Ends with one line of advice unless cargo is there and new enough for Cargo.toml.
require_rust() {
    local wanted found
    wanted=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' "$REPOSITORY/Cargo.toml")
    local advice="needs Rust $wanted or newer: https://rustup.rs installs it (Debian 12's own is older)"
    if ! command -v cargo >/dev/null && [[ -r $HOME/.cargo/env ]]; then
        # shellcheck source=/dev/null
        . "$HOME/.cargo/env"
    fi
    command -v cargo >/dev/null || fail "$advice"
    found=$(cd "$REPOSITORY" && cargo --version | cut -d ' ' -f 2)
    [[ $(printf '%s\n' "$wanted" "$found" | sort -V | head -n 1) == "$wanted" ]] ||
        fail "$advice; here is $found"
}

# Builds the release binary; prints nothing on stdout.
build_release() {
    say "building shardgate (release)"
    (cd "$REPOSITORY" && ${CARGO:-cargo} build --release --locked --package shardgate >&2) ||
        fail "the build failed"
}
