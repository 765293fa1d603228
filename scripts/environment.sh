# Sourced by the other scripts: a virtual environment of the project's own, in $MLSQL_VENV or .venv.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
venv="${MLSQL_VENV:-.venv}"
export PIP_DISABLE_PIP_VERSION_CHECK=1

# Installs the project with the given extras, unless that was done since pyproject.toml last changed.
install() {
    local stamp="$venv/.installed${1:+-$1}"
    if [ ! -x "$venv/bin/python" ]; then
        # Debian's Python may come without ensurepip: then the machine's own pip installs into the environment.
        python3 -m venv "$venv" >/dev/null 2>&1 || python3 -m venv --clear --without-pip "$venv"
    fi
    if [ ! "$stamp" -nt pyproject.toml ]; then
        echo "Installing into $venv ..."
        pip_install -e ".${1:+[$1]}"
        touch "$stamp"
    fi
}

pip_install() {
    if [ -x "$venv/bin/pip" ]; then
        "$venv/bin/pip" install --quiet "$@"
    else
        python3 -m pip --python "$venv/bin/python" install --quiet "$@"
    fi
}
