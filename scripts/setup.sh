#!/bin/sh
# Makes this clone ready: system packages where they are missing, /dev/fuse, and .venv with pinned versions.
#
#   scripts/setup.sh run     what s3mount itself needs
#   scripts/setup.sh test    and what its tests need
#   scripts/setup.sh packages    the system packages only; prints the Python to use (for scripts/install.sh)
#
# Idempotent: a stamp in .venv says what it was built from; while that is unchanged there is nothing to do.
# As root, or with a sudo that asks for no password, it installs Debian and Ubuntu packages through apt; elsewhere it names what is
# missing and stops. PYTHON=/path/to/python chooses the interpreter. Python packages come from wherever pip is set up to look.
set -eu
cd "$(dirname "$0")/.."

want=${1:-run}
stamp=.venv/.ready-$want

say() { echo "setup: $*" >&2; }
stop() { say "$*"; exit 1; }
have() { command -v "$1" >/dev/null 2>&1; }

# -- the interpreter ------------------------------------------------------------------------

recent() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }

find_python() {
    for python in ${PYTHON:-python3 python3.14 python3.13 python3.12 python3.11}; do
        if have "$python" && recent "$python"; then
            "$python" -c 'import os, sys; print(os.path.realpath(sys.executable))'
            return
        fi
    done
    stop "s3mount needs Python 3.11 or newer and there is none; install it, or name it with PYTHON=/path/to/python."
}

# -- /dev/fuse ------------------------------------------------------------------------------

# The fuse3 package opens /dev/fuse to everybody by a udev rule; where no udev runs (a container) it may still be for root alone.
open_dev_fuse() {
    [ -e /dev/fuse ] || { say "there is no /dev/fuse: nothing can be mounted here (load the fuse module, or pass the device to the container)."; return 0; }
    [ -r /dev/fuse ] && [ -w /dev/fuse ] && [ "$(id -u)" -ne 0 ] && return 0
    if [ "$(id -u)" -ne 0 ]; then
        say "/dev/fuse is not open to ordinary users: nothing can be mounted until root runs 'chmod 666 /dev/fuse'."
    elif [ "$(stat -c %a /dev/fuse)" = 600 ] && [ ! -e /run/udev/control ]; then
        if chmod 666 /dev/fuse 2>/dev/null; then
            say "/dev/fuse was for root alone and no udev runs here; set its mode to 666."
        fi
    fi
}

# -- system packages ------------------------------------------------------------------------

# Each need is tried, not looked up in a package database: what is there from elsewhere will do. Prints the needs not met.
unmet() {
    have fusermount3 || echo fuse
    { have pkg-config && pkg-config --exists fuse3; } || echo fuse-headers
    { have cc || have gcc; } && [ -e /usr/include/stdlib.h ] || echo compiler
    "$python" -c 'import ensurepip, venv' 2>/dev/null || echo venv
    "$python" -c 'import os, sys, sysconfig; sys.exit(not os.path.exists(sysconfig.get_path("include") + "/Python.h"))' || echo python-headers
    [ "$want" = test ] || return 0
    have git || echo git
    have rsync || echo rsync
    have sqlite3 || echo sqlite
    have getfattr || echo attr
    have systemd-analyze || echo systemd
    have s3fs || echo s3fs
}

# Debian names the headers and venv of a Python that is not its default by version: python3.12-venv.
versioned() {
    if [ -x /usr/bin/python3 ] && [ "$python" = "$(readlink -f /usr/bin/python3)" ]; then
        echo python3
    else
        "$python" -c 'import sys; print("python%d.%d" % sys.version_info[:2])'
    fi
}

# packages MANAGER NEED...: what the manager calls them.
packages() {
    manager=$1; shift
    for need in "$@"; do
        case $manager:$need in
            *:fuse) echo fuse3 ;;
            apt:fuse-headers) echo libfuse3-dev pkg-config ;;
            dnf:fuse-headers) echo fuse3-devel pkgconf-pkg-config ;;
            apk:fuse-headers) echo fuse3-dev pkgconf ;;
            pacman:fuse-headers) echo fuse3 pkgconf ;;
            apt:compiler) echo gcc libc6-dev ;;
            dnf:compiler) echo gcc glibc-devel ;;
            apk:compiler) echo gcc musl-dev ;;
            pacman:compiler) echo gcc ;;
            apt:venv) echo "$(versioned)-venv" ;;
            apt:python-headers) echo "$(versioned)-dev" ;;
            dnf:venv | apk:venv) echo python3 ;;
            dnf:python-headers) echo python3-devel ;;
            apk:python-headers) echo python3-dev ;;
            pacman:venv | pacman:python-headers) echo python ;;
            apt:sqlite) echo sqlite3 ;;
            dnf:s3fs | apk:s3fs | pacman:s3fs) echo s3fs-fuse ;;
            *) echo "$need" ;;
        esac
    done | tr ' ' '\n' | sort -u | tr '\n' ' '
}

as_root() {
    if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo -n "$@"; fi
}

may_install() {
    have apt-get && { [ "$(id -u)" -eq 0 ] || { have sudo && sudo -n true 2>/dev/null; }; }
}

apt_install() {
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "$@" >&2
}

name_and_stop() {
    for manager in apt-get dnf apk pacman; do
        have "$manager" || continue
        case $manager in
            apt-get) command="apt-get install $(packages apt "$@")" ;;
            dnf) command="dnf install $(packages dnf "$@")" ;;
            apk) command="apk add $(packages apk "$@")" ;;
            pacman) command="pacman -S $(packages pacman "$@")" ;;
        esac
        stop "some system packages are missing; as root run '${command% }', then try again."
    done
    stop "these are missing and no known package manager is here: $(packages apt "$@")(Debian's names); install them, then try again."
}

meet_needs() {
    needs=$(unmet)
    [ -n "$needs" ] || return 0
    # Word splitting of the lists is meant, here and below.
    # shellcheck disable=SC2086
    may_install || name_and_stop $needs
    # shellcheck disable=SC2086
    list=$(packages apt $needs)
    say "installing ${list% }"
    # shellcheck disable=SC2086
    apt_install $list || { as_root apt-get update -q >&2 && apt_install $list; } || stop "apt could not install ${list% }; see above."
    needs=$(unmet)
    # shellcheck disable=SC2086
    [ -z "$needs" ] || name_and_stop $needs
}

# -- .venv ----------------------------------------------------------------------------------

fingerprint() {
    { pwd; "$python" --version; echo "$python"; cat pyproject.toml constraints.txt; } | cksum
}

is_ready() {
    [ -f "$1" ] && [ "$(cat "$1")" = "$(fingerprint)" ] && .venv/bin/python -c '' 2>/dev/null
}

build_venv() {
    .venv/bin/python -c '' 2>/dev/null && [ "$(cat .venv/.python 2>/dev/null)" = "$(pwd) $python" ] || {
        rm -rf .venv
        "$python" -m venv .venv
        echo "$(pwd) $python" >.venv/.python
    }
    say "installing Python packages into .venv (a minute or two the first time)"
    target=.
    [ "$want" = run ] || target=".[$want]"
    # What builds a package from source is pinned as well: pip before 25.3 reads the first variable there, later ones the second.
    # compat: a line of sys.path instead of a finder, which every start of Python would spend 20 ms on.
    PIP_CONSTRAINT=constraints.txt PIP_BUILD_CONSTRAINT=constraints.txt \
        .venv/bin/python -m pip install --quiet --disable-pip-version-check --config-settings editable_mode=compat --editable "$target" >&2 ||
        stop "pip could not install the packages; see above."
    fingerprint >"$stamp"
}

case $want in run | test | packages) ;; *) stop "usage: scripts/setup.sh [run|test|packages]" ;; esac
python=$(find_python)
[ "$want" != packages ] || { meet_needs; echo "$python"; exit; }
is_ready "$stamp" || { meet_needs; build_venv; }
[ "$want" = run ] || cp "$stamp" .venv/.ready-run
open_dev_fuse
