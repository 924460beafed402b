#!/usr/bin/env bash
# Generates the typed TypeScript client from the contract into .local/client, and compiles it, together with an
# example of its use.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
bin=.local/contract-tools/node_modules/.bin

rm -rf .local/client
"$bin/openapi-ts" --input ./contracts/api-spec.yaml --output .local/client/src --client @hey-api/client-fetch \
	--no-log-file --silent
cp contracts/tools/example.ts .local/client/
cp contracts/tools/tsconfig.json .local/client/
"$bin/tsc" --project .local/client
echo "the client is in .local/client/src, compiled in .local/client/dist"
