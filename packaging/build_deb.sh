#!/bin/sh
# Builds the Debian package from this source tree, and prints its path as the last line.
#
#     packaging/build_deb.sh --output DIRECTORY [--version VERSION]
#
# VERSION is the package's; without it the package is the first of the agent's own version. What is
# built is for this machine's Debian release and processor. PYTHON, by default that of .venv, has the
# packages of requirements-build.txt; nothing but what requirements.txt names, with its hashes, comes
# from the index. The same source gives the same bytes: its moment is SOURCE_DATE_EPOCH, and without
# that the last commit's.
set -eu
umask 022

usage() {
    echo "usage: build_deb.sh --output DIRECTORY [--version VERSION]" >&2
    exit 2
}

output= version=
while [ $# -ge 2 ]; do
    case $1 in
        --output) output=$2 ;;
        --version) version=$2 ;;
        *) usage ;;
    esac
    shift 2
done
[ $# -eq 0 ] && [ -n "$output" ] || usage
mkdir -p "$output"
output=$(realpath "$output")
cd "$(dirname "$0")/.."
PYTHON=$(realpath --no-symlinks "${PYTHON:-.venv/bin/python}")
export PYTHON
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}
export SOURCE_DATE_EPOCH
# Those of a developer or of another build.
unset DH_OPTIONS DH_VERBOSE DEB_BUILD_OPTIONS MAKEFLAGS MFLAGS

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# From the sdist, so that what is missing there is missed here.
"$PYTHON" -m hatchling build --directory "$work/dist" >&2
mkdir "$work/source"
tar -xf "$work"/dist/*.tar.gz -C "$work/source" --strip-components=1
cp -R "$work/source/packaging/debian" "$work/source/debian"
cd "$work/source"
agent=$(basename "$work"/dist/*.tar.gz .tar.gz)
cat > debian/changelog <<END
sfmtls-agent (${version:-${agent#*-}-1}) $(. /etc/os-release; echo "$VERSION_CODENAME"); urgency=medium

  * What changed in the agent is in its own changelog, beside this one.

 -- $(sed -n 's/^Maintainer: //p' debian/control)  $(date --utc --rfc-email --date="@$SOURCE_DATE_EPOCH")
END
WHEELS=$work/dist debian/rules binary >&2
package=$(basename "$work"/sfmtls-agent_*.deb)
mv "$work/$package" "$output/$package"
echo "$output/$package"
