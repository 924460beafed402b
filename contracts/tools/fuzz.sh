#!/usr/bin/env bash
# Holds a running API against its contract, as every kind of caller: thousands of requests, good and bad, by
# schemathesis. `make contract` runs it with the API's address, an organization and tokens in the environment.
# EXAMPLES is how many requests are made up for each operation, caller and phase.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
venv=.local/contract-tools/venv/bin

fuzz() {
	echo "## as $1"
	# One check is left out: that every request is accepted whose parameters are fine one by one. Two of them may
	# exclude each other, and a cursor belongs to one question.
	TOKEN=$2 "$venv/schemathesis" --config-file contracts/tools/schemathesis.toml run \
		--url "$API_URL" --phases examples,coverage,fuzzing --checks all \
		--exclude-checks positive_data_acceptance --seed 1 --max-examples "${EXAMPLES:-50}" --workers 2 \
		--warnings off --no-color contracts/api-spec.yaml
}

fuzz "a system admin" "$SYSTEM_ADMIN_TOKEN"
# Refusals alone would prove little: every operation must have given answers as well.
"$venv/python" contracts/tools/answered.py contracts/api-spec.yaml "$API_URL"
fuzz "an admin of an organization" "$ORG_ADMIN_TOKEN"
fuzz "a user of an organization" "$ORG_USER_TOKEN"
fuzz "nobody" no-token
