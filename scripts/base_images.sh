#!/usr/bin/env bash
# Makes the images that Dockerfile and docker-compose.yml build on, where no registry can be reached: of Debian's packages and this
# machine's Rust toolchain, under the names that the files have and with the same entry points and paths, so that what is tested is the
# files that users run. An image that is there already is left as it is, and whoever reaches a registry needs none of this. Grafana is
# not among Debian's packages. Needs root, an engine, and debootstrap, which it installs. Takes two to three minutes.
# Usage: scripts/base_images.sh
set -euo pipefail
cd "$(dirname "$0")/.."

# The name that a file has for an image.
name_of() { sed -n "s|^.*[ :]\($1:[^ ]*\).*\$|\1|p" Dockerfile docker-compose.yml | head -n 1; }
suite=bookworm
debian=debian:$suite-slim
rust=$(name_of rust) haproxy=$(name_of haproxy) prometheus=$(name_of prom/prometheus)

missing=()
for image in "$debian" "$rust" "$haproxy" "$prometheus"; do
    docker image inspect "$image" >/dev/null 2>&1 || missing+=("$image")
done
[ "${#missing[@]}" -gt 0 ] || exit 0
echo "base_images: to be made: ${missing[*]}"
is_missing() { ! docker image inspect "$1" >/dev/null 2>&1; }

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
# Its words are of interest only if it fails.
quietly() { "$@" >"$folder/said" 2>&1 || { cat "$folder/said"; echo "base_images: failed: $*"; exit 1; }; }
# Builds with a Dockerfile from stdin and a folder's files beside it.
build() {
    cat >"$2/Dockerfile"
    quietly docker build --network host --tag "$1" "$2"
    echo "base_images: made $1"
}

if is_missing "$debian"; then
    [ "$(id -u)" -eq 0 ] || { echo "base_images: debootstrap needs root"; exit 1; }
    command -v debootstrap >/dev/null || quietly apt-get install --yes --no-install-recommends debootstrap
    mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Component: main' | head -n 1)
    quietly debootstrap --variant=minbase --include=ca-certificates "$suite" "$folder/root" "$mirror"
    # As this machine reaches its packages and whom it trusts, so do the images.
    apt-config dump | grep '^Acquire::' >"$folder/root/etc/apt/apt.conf.d/90machine"
    cp /etc/ssl/certs/ca-certificates.crt "$folder/root/etc/ssl/certs/ca-certificates.crt"
    rm -rf "$folder"/root/var/cache/apt/archives/*.deb "$folder"/root/usr/share/{doc,locale,man}/*
    tar -C "$folder/root" -c . | docker import --change 'CMD ["bash"]' - "$debian" >/dev/null
    rm -rf "$folder/root"
    echo "base_images: made $debian"
fi

if is_missing "$rust"; then
    mkdir "$folder/rust"
    toolchain=$(rustc --print sysroot)
    mkdir "$folder/rust/toolchain" "$folder/rust/toolchain/bin"
    cp -a "$toolchain/bin"/{cargo,rustc,rustdoc} "$folder/rust/toolchain/bin"
    cp -a "$toolchain/lib" "$folder/rust/toolchain"
    build "$rust" "$folder/rust" <<END
FROM $debian
RUN apt-get update && apt-get install --yes --no-install-recommends gcc libc6-dev && rm -rf /var/lib/apt/lists/*
COPY toolchain /usr/local/rustup/toolchains/local
ENV RUSTUP_HOME=/usr/local/rustup CARGO_HOME=/usr/local/cargo PATH=/usr/local/cargo/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
RUN mkdir -p /usr/local/cargo/bin && ln -s /usr/local/rustup/toolchains/local/bin/* /usr/local/cargo/bin && chmod -R a+w /usr/local/cargo
CMD ["bash"]
END
    rm -rf "$folder/rust"
fi

if is_missing "$haproxy"; then
    mkdir "$folder/haproxy"
    cat >"$folder/haproxy/docker-entrypoint.sh" <<'END'
#!/bin/sh
set -e
[ "${1#-}" = "$1" ] || set -- haproxy "$@"
if [ "$1" = haproxy ]; then
    shift
    set -- haproxy -W -db "$@"
fi
exec "$@"
END
    chmod a+rx "$folder/haproxy/docker-entrypoint.sh"
    build "$haproxy" "$folder/haproxy" <<END
FROM $debian
RUN apt-get update && apt-get install --yes --no-install-recommends haproxy && rm -rf /var/lib/apt/lists/*
COPY docker-entrypoint.sh /usr/local/bin/
USER haproxy
STOPSIGNAL SIGUSR1
ENTRYPOINT ["docker-entrypoint.sh"]
CMD ["haproxy", "-f", "/usr/local/etc/haproxy/haproxy.cfg"]
END
fi

if is_missing "$prometheus"; then
    mkdir "$folder/prometheus"
    build "$prometheus" "$folder/prometheus" <<END
FROM $debian
RUN apt-get update && apt-get install --yes --no-install-recommends prometheus && rm -rf /var/lib/apt/lists/*
RUN mkdir -p /prometheus && chown nobody:nogroup /prometheus
USER nobody
WORKDIR /prometheus
VOLUME /prometheus
ENTRYPOINT ["/bin/prometheus"]
CMD ["--config.file=/etc/prometheus/prometheus.yml", "--storage.tsdb.path=/prometheus"]
END
fi
