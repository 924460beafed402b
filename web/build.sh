#!/usr/bin/env bash
# Builds the dashboard into web/dist, where analytics-api embeds it: the client from the contract, then the page.
# Does nothing if nothing changed. Without Node 20 or npm it says so loudly, and leaves web/dist as it is: the
# services build and test without it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

major=$(node --version 2>/dev/null | sed -n 's/^v\([0-9]*\).*/\1/p')
if [ "${major:-0}" -lt 20 ] || ! command -v npm >/dev/null; then
	echo "########################################################################" >&2
	echo "## SKIPPED: the dashboard, as Node 20 or newer and npm are not installed" >&2
	echo "########################################################################" >&2
	exit 0
fi

inputs() {
	find web/src web/browser web/*.json web/*.ts web/index.html web/build.sh contracts/api-spec.yaml contracts/tools \
		-type f -print0 | sort -z | xargs -0 sha256sum
	node --version
}
stamp=web/node_modules/.built
if [ -f web/dist/index.html ] && [ -f "$stamp" ] && [ "$(inputs | sha256sum)" = "$(cat "$stamp")" ]; then
	exit 0
fi

contracts/tools/install.sh
contracts/tools/client.sh >/dev/null
if ! cmp -s web/package-lock.json web/node_modules/.installed; then
	npm --prefix web ci --ignore-scripts --no-audit --no-fund --loglevel=error
	cp web/package-lock.json web/node_modules/.installed
fi
npm --prefix web run --silent build
inputs | sha256sum >"$stamp"
