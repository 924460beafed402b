#!/usr/bin/env bash
# Lints the contract.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
export REDOCLY_TELEMETRY=off REDOCLY_SUPPRESS_UPDATE_NOTICE=true
.local/contract-tools/node_modules/.bin/redocly lint --config contracts/tools/redocly.yaml contracts/api-spec.yaml
