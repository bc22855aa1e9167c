"""Commands in processes of their own that need no time for imports, and stand-ins of programs.

A server imports what the commands import and forks itself for each of them. It defines no flags and
starts no JAX backend, so a fork behaves as a new interpreter does.
"""
import atexit
import functools
import gc
import json
import os
import pathlib
import platform
import runpy
import signal
import subprocess
import sys
import tempfile
from typing import Any

from tests import tiny


def call(*words: Any, cwd: Any = tiny.ROOT, timeout: int = 280, **variables: str
         ) -> subprocess.CompletedProcess:
  """`python WORDS...`, where WORDS start with '-m', MODULE or '-c', CODE.

  `variables` are added to the environment; after `timeout` seconds the process is killed.
  """
  arguments = [str(word) for word in words]
  with tempfile.TemporaryDirectory() as folder:
    paths = [pathlib.Path(folder, name) for name in ('stdout', 'stderr')]
    server = _server()
    server.stdin.write(json.dumps({
        'words': arguments, 'cwd': str(cwd), 'outputs': list(map(str, paths)), 'timeout': timeout,
        'environment': {**os.environ, 'PYTHONPATH': str(tiny.ROOT), **variables}}) + '\n')
    server.stdin.flush()
    status = int(server.stdout.readline())
    return subprocess.CompletedProcess(arguments, status, *(path.read_text() for path in paths))


@functools.cache
def _server() -> subprocess.Popen:
  """The server of this process; it ends when its standard input is closed."""
  server = subprocess.Popen([sys.executable, '-m', 'tests.processes'], cwd=tiny.ROOT, text=True,
                            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                            env={**os.environ, 'PYTHONPATH': str(tiny.ROOT)})
  atexit.register(server.communicate)
  return server


def write_scripts(folder: pathlib.Path, **scripts: str) -> None:
  """Writes commands, by name, in Bash."""
  folder.mkdir(parents=True, exist_ok=True)
  for name, text in scripts.items():
    (folder / name).write_text(f'#!/bin/bash\n{text}\n')
    (folder / name).chmod(0o755)


def write_cluster(folder: pathlib.Path, **commands: str) -> dict[str, str]:
  """Variables with which launch/slurm.sh takes this Python for its environment, and `commands`."""
  venv = folder / 'venv'
  write_scripts(venv / 'bin', python=f'exec {sys.executable} "$@"')
  (venv / 'installed').write_text('\n'.join([
      f'Python {platform.python_version()}', str(tiny.ROOT),
      (tiny.ROOT / 'pyproject.toml').read_text()])
      + (tiny.ROOT / 'launch' / 'constraints.txt').read_text())
  write_scripts(folder / 'commands', **commands)
  return {'SPINEJAX_VENV': str(venv), 'SPINEJAX_PYTHON': sys.executable, 'SPINEJAX_EXTRAS': '',
          'PATH': f'{folder / "commands"}:{os.environ["PATH"]}'}


def main() -> None:
  import matplotlib.pyplot  # noqa: F401
  import orbax.checkpoint  # noqa: F401

  import spinejax.data.build
  import spinejax.evaluate
  import spinejax.inference.export
  import spinejax.inference.files
  import spinejax.inference.measure_files
  import spinejax.report.pages
  import spinejax.train  # noqa: F401

  gc.collect()
  gc.freeze()  # forks share the memory
  for line in iter(sys.stdin.readline, ''):
    request = json.loads(line)
    child = os.fork()
    if not child:
      run(request)
      return
    _, status = os.waitpid(child, 0)
    print(os.waitstatus_to_exitcode(status), flush=True)


def run(request: dict[str, Any]) -> None:
  """Becomes `python WORDS...` of a request."""
  import jax

  signal.alarm(request['timeout'])
  os.chdir(request['cwd'])
  for number, path in enumerate(['/dev/null', *request['outputs']]):
    os.dup2(os.open(path, os.O_RDWR | os.O_CREAT), number)
  changed = {name: value for name, value in request['environment'].items()
             if os.environ.get(name) != value}
  os.environ.update(changed)
  for name, value in changed.items():
    if hasattr(jax.config, name.lower()):  # JAX read it when it was imported
      old = getattr(jax.config, name.lower())
      jax.config.update(name.lower(), type(old)(value) if old is not None else value)
  kind, program, *arguments = request['words']
  sys.argv = [program if kind == '-m' else kind, *arguments]
  sys.path[0] = request['cwd']
  if kind == '-m':
    runpy.run_module(program, run_name='__main__', alter_sys=True)
  else:
    exec(compile(program, '<string>', 'exec'), {'__name__': '__main__'})


if __name__ == '__main__':
  main()
