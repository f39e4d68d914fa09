#!/bin/sh
# Renew constraints.txt: what pip chooses today for a fresh environment with the test extra, and what builds it.
set -eu
cd "$(dirname "$0")/.."
python=$(scripts/setup.sh packages)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"$python" -m venv "$work/venv"
cp -R pyproject.toml README.md LICENSE s3mount "$work"
# The last three build this package and pyfuse3, which comes as source.
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check --upgrade "$work[test]" setuptools setuptools_scm Cython
{
    sed -n '/^#/p' constraints.txt
    "$work/venv/bin/python" -m pip freeze --all --disable-pip-version-check | grep -v -e '^s3mount' -e '^pip=='
} >"$work/constraints.txt"
cp "$work/constraints.txt" constraints.txt
