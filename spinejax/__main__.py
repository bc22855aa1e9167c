"""spinejax: spine image segmentation and angles of scoliosis in JAX.

  spinejax VERB [flags]          python -m spinejax VERB [flags]
  spinejax VERB --help

"""
import importlib
import sys

from spinejax.version import __version__

VERBS = {
    'train': ('spinejax.main', 'train a config, test it and write the report'),
    'test': ('spinejax.commands.test', 'test a trained run again and write its report'),
    'predict': ('spinejax.commands.predict', 'segment and measure new images'),
    'measure': ('spinejax.commands.measure', 'measure angles of masks from any program'),
    'maps': ('spinejax.commands.maps', 'pictures of what the attention of a network looks at'),
    'compare': ('spinejax.commands.compare', 'compare runs on the same test cases'),
    'stress': ('spinejax.commands.stress', 'test runs on phantoms whose artifacts get stronger'),
    'agree': ('spinejax.commands.agree', 'agreement of two tables of angles'),
    'build': ('spinejax.commands.build', 'check a folder of images and build a dataset'),
    'cost': ('spinejax.commands.cost', 'count parameters, operations and memory of a network'),
    'sweep': ('spinejax.commands.sweep', 'train all members of a sweep and collect a table'),
    'export': ('spinejax.commands.export', 'export a trained network for use without spinejax'),
    'bench': ('spinejax.commands.bench', 'time networks and compare them with PyTorch'),
}


def main() -> None:
  """Runs the verb `sys.argv[1]`; without one prints all verbs."""
  verb = sys.argv[1] if len(sys.argv) > 1 else ''
  if verb in ('', '-h', '-help', '--help', 'help'):
    verbs = '\n'.join(f'  {name:9}{text}' for name, (_, text) in VERBS.items())
    print(f'{(__doc__ or "").strip()}\n\nVerbs:\n{verbs}')
    return
  if verb == '--version':
    print(__version__)
    return
  if verb not in VERBS:
    print(f'error: unknown verb {verb!r}; the verbs are {", ".join(VERBS)}.', file=sys.stderr)
    sys.exit(2)
  sys.argv = [f'spinejax {verb}', *sys.argv[2:]]
  command = importlib.import_module(VERBS[verb][0])
  from spinejax.commands import cli  # late: the list of verbs needs no other package
  cli.run(command.main, command.POSITIONALS)


if __name__ == '__main__':
  main()
