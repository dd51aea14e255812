#!/usr/bin/env bash
# Builds the Debian package into target/debian: the server, its units, its manual page and completions, which it prints itself. Checks what
# is in it, and has lintian look at it where that is here. Without cargo-deb it says "skipped"; --install installs that, for two to four
# minutes. Takes two minutes more if the server is to be built.
# Usage: scripts/deb.sh [--install]
set -euo pipefail
cd "$(dirname "$0")/.."

case ${1:-} in
'') ;;
--install) cargo deb --version >/dev/null 2>&1 || timeout 900 cargo install cargo-deb --locked --debug || true ;;
*) sed -n 's/^# Usage: //p' "$0" >&2 && exit 2 ;;
esac
cargo deb --version >/dev/null 2>&1 || { echo "deb: skipped: cargo-deb is not here (cargo install cargo-deb)"; exit 0; }
command -v dpkg-deb >/dev/null || { echo "deb: skipped: there is no dpkg-deb"; exit 0; }

cargo build --release --workspace --locked
target=${CARGO_TARGET_DIR:-target}
papers=$target/deb
mkdir -p "$papers"
"$target/release/disrust" man >"$papers/disrust.1"
"$target/release/disrust" completions bash >"$papers/disrust.bash"
"$target/release/disrust" completions zsh >"$papers/_disrust"
"$target/release/disrust" completions fish >"$papers/disrust.fish"
{
    cat LICENSE-MIT
    printf '\nOr, at your option, the Apache License, Version 2.0, which is in /usr/share/common-licenses/Apache-2.0.\n'
} >"$papers/license"
version=$(sed -n '/^\[workspace.package\]/,/^\[package\]/s/^version = "\(.*\)"/\1/p' Cargo.toml)
maintainer=$(sed -n 's/^maintainer = "\(.*\)"/\1/p' Cargo.toml)
# The last commit's time, so that the package of a commit is the same whenever it is built.
date=$(git log -1 --format=%cD 2>/dev/null || date --rfc-email)
printf 'disrust (%s-1) unstable; urgency=medium\n\n  * What has changed is in /usr/share/doc/disrust/CHANGELOG.md.\n\n -- %s  %s\n' \
    "$version" "$maintainer" "$date" >"$papers/changelog"
package=$(cargo deb --no-build --locked | tail -n 1)
dpkg-deb --contents "$package" | sed 's,^\([^ ]*\) *root/root ,\1 0/0 ,' | awk '{print $1, $2, $6}' >"$papers/contents"
for wanted in '-rwxr-xr-x 0/0 ./usr/bin/disrust' '-rw-r--r-- 0/0 ./usr/lib/systemd/system/disrust.service' \
    '-rw-r--r-- 0/0 ./usr/lib/systemd/system/disrust@.service' '-rw-r--r-- 0/0 ./usr/share/man/man1/disrust.1.gz' \
    '-rw-r--r-- 0/0 ./usr/share/bash-completion/completions/disrust' '-rw-r--r-- 0/0 ./usr/share/zsh/vendor-completions/_disrust' \
    '-rw-r--r-- 0/0 ./usr/share/fish/vendor_completions.d/disrust.fish' '-rw-r--r-- 0/0 ./etc/default/disrust' \
    '-rw-r--r-- 0/0 ./usr/share/doc/disrust/copyright'; do
    grep -qxF -- "$wanted" "$papers/contents" || { cat "$papers/contents"; echo "deb: not in the package: $wanted"; exit 1; }
done
if command -v lintian >/dev/null; then
    # There is no address to write to while it is not published.
    lintian --allow-root --suppress-tags bogus-mail-host,bogus-mail-host-in-debian-changelog --fail-on error "$package" || { echo "deb: lintian has errors"; exit 1; }
else
    echo "deb: lintian skipped: it is not here"
fi
echo "deb: $package"
