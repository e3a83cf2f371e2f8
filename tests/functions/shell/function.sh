handler() {
  echo "handling: $1" >&2
  case $1 in
    *fail*) return 1 ;;
    *environment*) printf '"%s"' "${AWS_EXECUTION_ENV-none} $PWD $LAMBDA_TASK_ROOT" ;;
    *) printf '{"echo": %s}' "$1" ;;
  esac
}
