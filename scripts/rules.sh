#!/usr/bin/env bash
# Writes docs/rules.md again, from the rules of the optimizer.
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
install
"$venv/bin/python" -m mlsql.explain.rulebook > docs/rules.md.new
mv docs/rules.md.new docs/rules.md
