#!/bin/sh
# make install, make uninstall: a virtual environment of its own under PREFIX/lib/s3mount, and links to its three commands.
#
#   PREFIX/lib/s3mount/                       everything, pinned by constraints.txt; `installed` in it lists what lies outside
#   PREFIX/bin/s3mount                        link
#   PREFIX/sbin/{mount,umount}.{,fuse.}s3mount    links, the helpers of mount(8)
#   HELPERDIR/{mount,umount}.{,fuse.}s3mount      links; mount(8) itself looks in /sbin only
#   PREFIX/lib/systemd/system/s3mount@.service, s3mount-serve.service
#
# DESTDIR is put before all of these while installing and appears in none of them. Uninstalling removes what is listed, and those
# directories that installing itself had to make (not those that a package manager made later), where they are empty.
set -eu
cd "$(dirname "$0")/.."

stop() { echo "install: $*" >&2; exit 1; }

home=$PREFIX/lib/s3mount
list=$DESTDIR$home/installed

# make_dir DIR: make it and its parents, and list those that were not there.
make_dir() {
    dir=$1
    while [ "$dir" != / ] && [ ! -d "$DESTDIR$dir" ]; do
        echo "dir $DESTDIR$dir"
        dir=$(dirname "$dir")
    done >>"$new_list"
    mkdir -p "$DESTDIR$1"
}

link() {
    make_dir "$(dirname "$2")"
    [ ! -e "$DESTDIR$2" ] || [ -L "$DESTDIR$2" ] || stop "$DESTDIR$2 is there and is not a link of ours; move it away first."
    ln -sfn "$1" "$DESTDIR$2"
    echo "link $2" >>"$new_list"
}

# What was built under one name works under another once no script names the former.
rename_in_scripts() {
    for script in "$1"/bin/* "$1/pyvenv.cfg"; do
        if [ -f "$script" ] && [ ! -L "$script" ]; then
            sed -i "s|$1|$2|g" "$script"
        fi
    done
}

build() {
    python=$(scripts/setup.sh packages)
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    # A copy, so that the build leaves nothing in the clone.
    cp -R pyproject.toml README.md LICENSE constraints.txt s3mount "$work"
    rm -rf "$1"
    "$python" -m venv --prompt s3mount "$1"
    (cd "$work" && PIP_CONSTRAINT=constraints.txt PIP_BUILD_CONSTRAINT=constraints.txt \
        "$1/bin/python" -m pip install --quiet --disable-pip-version-check --no-compile . >&2) || stop "pip could not install the packages; see above."
    "$1/bin/python" -m pip uninstall --quiet --yes --disable-pip-version-check pip setuptools >&2
    "$1/bin/python" -m compileall -q -s "$1" -p "$home" "$1/lib" >/dev/null || true
    rename_in_scripts "$1" "$home"
}

install_all() {
    case $PREFIX$HELPERDIR in *[[:space:]\|]*) stop "PREFIX and HELPERDIR must not hold spaces." ;; esac
    case $PREFIX in /*) ;; *) stop "PREFIX must begin with '/', not '$PREFIX'." ;; esac
    [ ! -e "$DESTDIR$home" ] || [ -e "$list" ] || stop "$DESTDIR$home is there and is not ours; move it away first."
    new_list=$(mktemp)
    [ ! -e "$list" ] || cat "$list" >"$new_list"
    make_dir "$PREFIX/lib"
    mkdir -p "$DESTDIR$PREFIX/lib"
    new=$(cd "$DESTDIR$PREFIX/lib" && pwd)/s3mount.new
    build "$new"
    link "$home/bin/s3mount" "$PREFIX/bin/s3mount"
    for helper in mount umount; do
        # A mount shows as type fuse.s3mount: by that name umount(8) looks for its helper.
        for type in s3mount fuse.s3mount; do
            link "$home/bin/$helper.s3mount" "$PREFIX/sbin/$helper.$type"
            [ "$HELPERDIR" = "$PREFIX/sbin" ] || link "$home/bin/$helper.s3mount" "$HELPERDIR/$helper.$type"
        done
    done
    make_dir "$PREFIX/lib/systemd/system"
    for unit in s3mount@.service s3mount-serve.service; do
        sed "s|/usr/local/|$PREFIX/|g" "systemd/$unit" >"$DESTDIR$PREFIX/lib/systemd/system/$unit"
        echo "file $PREFIX/lib/systemd/system/$unit" >>"$new_list"
    done
    sort -u "$new_list" >"$new/installed"
    rm -rf "$DESTDIR$home" "$new_list"
    mv "$new" "$DESTDIR$home"
    echo "installed: $PREFIX/bin/s3mount, and mount.s3mount and umount.s3mount in $HELPERDIR."
}

uninstall_all() {
    [ -e "$list" ] || stop "nothing is installed under $DESTDIR$PREFIX."
    kept=$(mktemp)
    cat "$list" >"$kept"
    rm -rf "$DESTDIR$home"
    while read -r kind path; do
        [ "$kind" = dir ] || rm -f "$DESTDIR$path"
    done <"$kept"
    # Deepest first: a longer path that begins with a shorter one sorts behind it.
    sort -r "$kept" | while read -r kind path; do
        [ "$kind" != dir ] || rmdir "$path" 2>/dev/null || true
    done
    rm -f "$kept"
    echo "removed what was installed under $DESTDIR$PREFIX."
}

case ${1:-} in
    install) install_all ;;
    uninstall) uninstall_all ;;
    *) stop "usage: PREFIX=... DESTDIR=... HELPERDIR=... scripts/install.sh install|uninstall" ;;
esac
