# Shared by the scripts beside it; sourced, not run.

set -euo pipefail
repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
venv=$repository/.venv
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
