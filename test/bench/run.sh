#!/bin/sh
# Builds everything and runs the bench. Arguments go to the bench: see -help.
set -eu
cd "$(dirname "$0")"

if [ "$(uname -s)" != Linux ]; then
	echo "bench: Linux only: it reads /proc and uses epoll" >&2
	exit 2
fi
mkdir -p bin
(cd ../.. && go build -o test/bench/bin/jobwire .)
go build -o bin/ . ./loadgen ./bare ./centrifuge
if ! cmp -s node/package-lock.json node/node_modules/.installed; then
	(cd node && npm ci --silent)
	cp node/package-lock.json node/node_modules/.installed
fi
commit=$(git rev-parse --short HEAD 2>/dev/null || true)
if [ -n "$commit" ] && ! git diff --quiet HEAD -- ../.. 2>/dev/null; then
	commit="$commit with changes"
fi
exec bin/bench -dir . -commit "$commit" "$@"
