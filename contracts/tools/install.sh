#!/usr/bin/env bash
# Installs the pinned tools of the contract into the git-ignored .local/contract-tools of the clone, once.
# Needs npm, and for `all` python3 with venv; where one is missing, it says so loudly and ends with status 3.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
tools=.local/contract-tools

missing() {
	echo "########################################################################" >&2
	echo "## SKIPPED: $1" >&2
	echo "########################################################################" >&2
	exit 3
}

command -v npm >/dev/null || missing "the contract's tools, as npm is not installed (apt-get install npm)"
mkdir -p "$tools"
if ! cmp -s contracts/tools/package-lock.json "$tools/node_modules/.installed"; then
	cp contracts/tools/package.json contracts/tools/package-lock.json "$tools/"
	npm --prefix "$tools" ci --ignore-scripts --no-audit --no-fund --loglevel=error
	cp contracts/tools/package-lock.json "$tools/node_modules/.installed"
fi

[ "${1:-}" = all ] || exit 0
python3 -c 'import ensurepip, venv' 2>/dev/null ||
	missing "schemathesis, as Python has no venv (apt-get install python3-venv)"
if ! cmp -s contracts/tools/requirements.txt "$tools/venv/.installed"; then
	rm -rf "$tools/venv"
	python3 -m venv "$tools/venv"
	"$tools/venv/bin/pip" install --quiet --disable-pip-version-check --require-hashes \
		--requirement contracts/tools/requirements.txt
	cp contracts/tools/requirements.txt "$tools/venv/.installed"
fi
