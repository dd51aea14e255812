#!/usr/bin/env bash
# Says whether this checkout can be released as the version that Cargo.toml names, as a list: what is done and what is not. Changes
# nothing, publishes nothing. Ends with status 1 if something is left to do. With --quick it builds and tests nothing.
# Usage: scripts/release_check.sh [--quick]
set -euo pipefail
cd "$(dirname "$0")/.."

left=0
# One item: what must be so, and the command that says whether it is.
item() {
    local what=$1
    shift
    if "$@" >/dev/null 2>&1; then
        echo "done  $what"
    else
        echo "LEFT  $what"
        left=$((left + 1))
    fi
}

version=$(sed -n '/^\[workspace.package\]/,/^\[package\]/s/^version = "\(.*\)"/\1/p' Cargo.toml)
programs=${CARGO_TARGET_DIR:-target}/release
echo "version $version"
# Each of these is a command line of its own, so that `item` can run it.
is_clean() { [ -z "$(git status --porcelain)" ]; }
is_new() { ! git rev-parse --verify --quiet "refs/tags/v$version"; }
lock_is_current() { [ "$(sed -n '/^name = "disrust"$/{n;s/^version = "\(.*\)"/\1/p}' Cargo.lock)" = "$version" ]; }
changes_are_told() { grep -q "^## $version" CHANGELOG.md && ! grep -q '^## Unreleased' CHANGELOG.md; }
image_is_named() { grep -q "image: disrust:$version\$" deploy/kubernetes/deployment.yaml; }
compose_names_it() { grep -q "image: disrust:$version\$" docker-compose.yml; }
makes_a_package() { scripts/deb.sh --install | tee /dev/stderr | grep -q "^deb: .*disrust_$version"; }
says_its_version() { "$programs/disrust" --version | grep -q "$version"; }
prints_its_papers() { "$programs/disrust" man | grep -q '^\.TH' && "$programs/disrust" completions bash | grep -q _disrust; }

item "nothing is uncommitted" is_clean
item "there is no tag v$version yet" is_new
item "Cargo.lock has the version" lock_is_current
item "CHANGELOG.md has the version, and nothing is left under Unreleased" changes_are_told
item "deploy/kubernetes names the image of this version" image_is_named
item "docker-compose.yml names it too" compose_names_it
item "clients/python has the version" grep -q "^__version__ = \"$version\"\$" clients/python/src/disrust/__init__.py
item "both licences are there" test -s LICENSE-APACHE -a -s LICENSE-MIT
if [ "${1:-}" != --quick ]; then
    item "it builds, with the versions of Cargo.lock" cargo build --release --workspace --locked
    item "the program says the version" says_its_version
    item "it prints its manual page and completions" prints_its_papers
    item "it becomes a Debian package" makes_a_package
    item "everything passes, for hours (CI_FULL=1 .ci/run)" env CI_FULL=1 .ci/run
fi
[ "$left" -eq 0 ] || { echo "$left left to do"; exit 1; }
echo "then: git tag --annotate v$version, push it, build the image (COMMIT) and publish the package of target/debian"
