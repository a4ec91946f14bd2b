#!/usr/bin/env bash
# Brings what the tests need from Debian's packages. What cannot be installed
# is named, and the run fails: no test is left out in silence.
set -euo pipefail

have() { command -v "$1" >/dev/null 2>&1; }

unmet=()
have go || unmet+=("Go 1.26 or newer (go.dev/dl)")
have npm || unmet+=("npm")
if ! have node || [ "$(node -p 'process.versions.node.split(".")[0]')" -lt 20 ]; then
	unmet+=("Node 20 or newer")
fi

packages=()
have git || packages+=(git)
have gcc || packages+=(gcc libc6-dev) # the race detector is linked with it
[ -x "${CHROMIUM:-/usr/bin/chromium}" ] || packages+=(chromium fonts-liberation)

if [ ${#packages[@]} -gt 0 ]; then
	root=()
	if [ "$(id -u)" != 0 ]; then
		if have sudo && sudo -n true 2>/dev/null; then root=(sudo -n); else root=(false); fi
	fi
	if have apt-get && [ "${root[*]}" != false ]; then
		echo "installing ${packages[*]}"
		"${root[@]}" apt-get update -qq
		"${root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${packages[@]}" >/dev/null
	else
		for package in "${packages[@]}"; do unmet+=("$package (a Debian package; this user cannot install it)"); done
	fi
fi

if [ ${#unmet[@]} -gt 0 ]; then
	echo "The tests need what is not here:" >&2
	printf '  %s\n' "${unmet[@]}" >&2
	echo "A Chromium elsewhere is named by CHROMIUM=/path/to/it." >&2
	exit 1
fi
