# Sourced by the other scripts: makes .venv with slimport and the given extra, in the tested versions, and activates it.
#   source scripts/environment.sh EXTRA
# Needs only Python 3.10 or newer with pip. PYTHON chooses the interpreter.

extra=$1
stamp=.venv/.slimport-$extra-$(cat setup.cfg pyproject.toml scripts/constraints.txt scripts/judge.txt | cksum | cut -d' ' -f1)

if [ ! -x .venv/bin/python ]; then
  "${PYTHON:-python3}" -m venv .venv
fi
# shellcheck disable=SC1091
source .venv/bin/activate
if [ ! -e "$stamp" ]; then
  echo "installing slimport[$extra] into .venv" >&2
  python -m pip install --quiet --disable-pip-version-check --constraint scripts/constraints.txt --editable ".[$extra]"
  if [ "$extra" = test ]; then
    python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes --requirement scripts/judge.txt
  fi
  touch "$stamp"
fi
