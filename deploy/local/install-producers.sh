#!/usr/bin/env bash
# Installs the clients that the examples of docs/producers.md are for into the git-ignored .local/producers of the
# clone, once. What is missing for one of them is said; the other one is installed all the same.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
folder=.local/producers
mkdir -p "$folder"

skipped() {
	echo "## SKIPPED: the example of docs/producers.md for $1 ##" >&2
}

if ! python3 -c 'import ensurepip, venv' 2>/dev/null; then
	skipped "Python, as there is no python3 with venv (apt-get install python3-venv)"
elif [ ! -e "$folder/venv/.installed" ]; then
	rm -rf "$folder/venv"
	if python3 -m venv "$folder/venv" &&
		"$folder/venv/bin/pip" install --quiet --disable-pip-version-check pika==1.3.2; then
		touch "$folder/venv/.installed"
	else
		skipped "Python, as pika cannot be installed"
	fi
fi

if ! command -v node >/dev/null || ! command -v npm >/dev/null; then
	skipped "Node, as node or npm is not installed (apt-get install npm)"
elif [ ! -d "$folder/node_modules/amqplib" ]; then
	npm --prefix "$folder" install --ignore-scripts --no-audit --no-fund --loglevel=error amqplib@0.10.9 ||
		skipped "Node, as amqplib cannot be installed"
fi
exit 0
