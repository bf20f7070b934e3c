# Sourced by the other scripts: makes .venv with slimport and the given extra, in the tested versions, and activates it.
#   source scripts/environment.sh EXTRA
# Needs only Python 3.10 or newer with pip. PYTHON chooses the interpreter.

# Hundreds of processes import slimport in the tests: its modules are compiled once.
unset PYTHONDONTWRITEBYTECODE
extra=$1
stamp=.venv/.slimport-$extra-$(cat setup.cfg pyproject.toml scripts/constraints.txt scripts/judge.txt | cksum | cut -d' ' -f1)

if [ ! -x .venv/bin/python ]; then
  "${PYTHON:-python3}" -m venv .venv
fi
# shellcheck disable=SC1091
source .venv/bin/activate
if [ ! -e "$stamp" ]; then
  echo "installing slimport[$extra] into .venv: about 5 minutes, and up to 9 GB with PyTorch's CUDA libraries" >&2
  # A terminal sees each package and its download; a log only what fails.
  [ -t 2 ] && quiet= || quiet=--quiet
  install="python -m pip install $quiet --disable-pip-version-check"
  $install --constraint scripts/constraints.txt --editable ".[$extra]" >&2
  if [ "$extra" = test ]; then
    $install --no-deps --require-hashes --requirement scripts/judge.txt >&2
  fi
  touch "$stamp"
  echo "installed in ${SECONDS} s: $(du -sh .venv | cut -f1)" >&2
fi
