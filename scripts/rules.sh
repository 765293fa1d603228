#!/usr/bin/env bash
# Writes docs/rules.md again, from the rules of the optimizer.
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
install
"$venv/bin/python" -c "import mlsql.session.query.plan, mlsql.explain.rulebook as r; print(r.book(), end='')" > docs/rules.md.new
mv docs/rules.md.new docs/rules.md
