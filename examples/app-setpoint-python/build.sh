#!/bin/sh
# Makes the image example/setpoint:1 out of Debian packages, without a registry of
# images: apt brings Python, numpy and paho-mqtt into an empty root file system,
# and the Docker engine imports it. As root on Debian 12; needs mmdebstrap. IMAGE
# gives the image another name, MIRROR asks another mirror of Debian.
set -eu
cd "$(dirname "$0")"

if ! command -v mmdebstrap >/dev/null 2>&1; then
	echo "build.sh: no mmdebstrap; run: apt-get install --no-install-recommends mmdebstrap" >&2
	exit 1
fi

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
trap 'exit 1' HUP INT TERM

# Packages are unpacked, not installed: nothing of them has to be run for this, and
# the image stays small.
root=$scratch/root
mmdebstrap --quiet --variant=extract --format=directory --include=python3-numpy,python3-paho-mqtt \
	--aptopt='APT::Install-Recommends "false"' \
	--dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
	--hook-dir=/usr/share/mmdebstrap/hooks/merged-usr bookworm "$root" ${MIRROR:+"$MIRROR"} >"$scratch/log" 2>&1 ||
	{ cat "$scratch/log" >&2; exit 1; }

# What the packages' own scripts would have done, as far as Python needs it.
mkdir -p "$root/app" "$root/tmp"
chmod 1777 "$root/tmp"
echo nobody:x:65534:65534::/:/usr/sbin/nologin >"$root/etc/passwd"
echo "include /etc/ld.so.conf.d/*.conf" >"$root/etc/ld.so.conf"
for dir in "$root"/usr/lib/*/blas "$root"/usr/lib/*/lapack; do
	echo "${dir#"$root"}"
done >>"$root/etc/ld.so.conf"
ldconfig -r "$root"
install -m 644 control.py setpoint.py "$root/app"

tar -C "$root" -c . | docker import --change 'ENTRYPOINT ["/usr/bin/python3", "-B", "/app/setpoint.py"]' --change 'USER 65534' \
	- "${IMAGE:-example/setpoint:1}"
