# Shared by the scripts beside it; sourced, not run.

set -euo pipefail
repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
venv=$repository/.venv # the tests' and developers'; what is installed has its own
umask 022
export PATH=$PATH:/usr/sbin:/sbin
# Settings of the caller's shell must not reach what runs as root from here.
unset PYTHONPATH PYTHONHOME PYTHONSTARTUP VIRTUAL_ENV

say() {
    printf '==> %s\n' "$*"
}

die() {
    printf '%s: %s\n' "${0##*/}" "$*" >&2
    exit 1
}

need_root() {
    [[ $(id -u) -eq 0 ]] || { printf '%s: has to be run as root: sudo %s\n' "${0##*/}" "$0" >&2; exit 2; }
}

# The distribution's interpreter goes first: root runs it, and the user sandboxd must be able to read it, while one in
# somebody's home directory (pyenv) is neither safe nor readable.
find_python() {
    local python
    for python in /usr/bin/python3 /usr/bin/python3.{13,12,11} "$(command -v python3 || true)"; do
        if [[ -x $python ]] && "$python" -I -c '
import ensurepip, sys, sysconfig, venv, os
sys.exit(sys.version_info < (3, 11) or not os.path.exists(sysconfig.get_path("include") + "/Python.h"))' 2>/dev/null; then
            printf '%s' "$python"
            return
        fi
    done
    die "no Python 3.11 or newer with venv and headers; install python3, python3-venv and python3-dev"
}

# Usage: install_locked ENVIRONMENT LOCK. Every package with the hash that the lock has of it.
install_locked() {
    pip_of "$1" install --use-pep517 --require-hashes --requirement "$repository/$2"
}

# Usage: install_checkout ENVIRONMENT [--editable]
install_checkout() {
    pip_of "$1" install --no-deps --no-build-isolation --no-index "${@:2}" "$repository"
}

pip_of() {
    "$1/bin/python" -I -m pip -qq --no-input --disable-pip-version-check --no-cache-dir "${@:2}"
}
