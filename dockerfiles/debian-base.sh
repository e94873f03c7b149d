#!/usr/bin/env bash
# Make the image that our Dockerfiles start from (debian:bookworm-slim) out of this machine's own apt sources, for machines that
# cannot pull it from a registry.  Where the pull works this script is not needed: `docker pull debian:bookworm-slim` is the same thing.
#
#   dockerfiles/debian-base.sh [TAG]        needs root and mmdebstrap; does nothing when TAG exists (FORCE=1 makes it anew)
#
# The machine's certificate authorities are copied in, so that pip works in `docker build` behind an inspecting proxy too.
set -euo pipefail

tag=${1:-debian:bookworm-slim}
ca=/etc/ssl/certs/ca-certificates.crt

if docker image inspect "$tag" >/dev/null 2>&1 && [ -z "${FORCE:-}" ]; then
  echo "$tag is there already"
  exit 0
fi
command -v mmdebstrap >/dev/null || { echo "mmdebstrap is missing: apt-get install mmdebstrap" >&2; exit 3; }

# apt knows its mirrors whatever the format of the files they are written in.
mapfile -t sources < <(apt-get indextargets --format 'deb $(REPO_URI) $(CODENAME) $(COMPONENT)' \
  'Created-By: Packages' 'Origin: Debian' | grep ' bookworm' | sort -u)
[ ${#sources[@]} -gt 0 ] || { echo "apt lists no Debian bookworm packages: run apt-get update first" >&2; exit 3; }

# What the official slim image does too: no manuals and no translations, no apt caches left in layers.
slim=()
for pattern in 'exclude=/usr/share/man/*' 'exclude=/usr/share/doc/*' 'exclude=/usr/share/info/*' \
  'exclude=/usr/share/locale/*' 'include=/usr/share/locale/locale.alias'; do
  slim+=(--dpkgopt="path-$pattern")
done
finish=$(cat <<'HOOK'
mkdir -p "$1/usr/local/share/ca-certificates" "$1/etc/ssl/certs"
cp /usr/local/share/ca-certificates/*.crt "$1/usr/local/share/ca-certificates/" 2>/dev/null || true
cp -L /etc/ssl/certs/ca-certificates.crt "$1/etc/ssl/certs/" 2>/dev/null || true
rm -f "$1"/var/cache/apt/*.bin
cat >"$1/etc/apt/apt.conf.d/docker-clean" <<'CONF'
Dir::Cache::pkgcache "";
Dir::Cache::srcpkgcache "";
DPkg::Post-Invoke { "rm -f /var/cache/apt/archives/*.deb /var/cache/apt/archives/partial/*.deb || true"; };
CONF
HOOK
)

# Without usr-is-merged, 48 MB of perl come in to convert a tree that the hook has made merged already.
mmdebstrap --quiet --variant=minbase --include=usr-is-merged --hook-dir=/usr/share/mmdebstrap/hooks/merged-usr \
  "${slim[@]}" --dpkgopt=force-unsafe-io --aptopt='Acquire::Languages "none"' --aptopt='Acquire::Check-Valid-Until "false"' \
  --customize-hook="$finish" bookworm - "${sources[@]}" |
  docker import -c 'CMD ["bash"]' -c 'ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin' \
    -c "ENV PIP_CERT=$ca SSL_CERT_FILE=$ca REQUESTS_CA_BUNDLE=$ca" - "$tag"
