#!/usr/bin/env bash
# Installs mlsql into a virtual environment of its own and trains a network on handwritten digits.
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
install ""
exec "$venv/bin/mlsql" -f examples/digits.sql
