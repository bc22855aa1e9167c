"""Collects the results of finished runs as rows of a results file.

  python -m benchmarks.quick_runs --runs=runs --output=launch/results/quick_runs.jsonl

Each run folder in --runs whose name ends with _quick gives a row: metrics, angles, durations,
devices. Rows of the same run that are in the file are replaced.
"""
import json
import pathlib

from absl import flags

from benchmarks import facts
from spinejax.commands import cli

POSITIONALS = ()

_RUNS = flags.DEFINE_string('runs', 'runs', 'Folder of run folders.')
_OUTPUT = flags.DEFINE_string('output', None, 'JSON Lines file to write.', required=True)


def read_run(folder: pathlib.Path) -> dict:
  """The row of one run folder."""
  metrics = json.loads((folder / 'test_metrics.json').read_text())
  manifest = json.loads((folder / 'manifest.json').read_text())
  row = {'run': folder.name, 'step': metrics['step'], 'cases': len(metrics['cases']),
         'dice': metrics['per_image']['dice'], 'dice_sd': metrics['per_image']['dice_sd'],
         'at_network_size': metrics['at_network_size'], 'durations': manifest['durations'],
         'devices': manifest['starts'][-1]['devices']}
  if 'laminae' in metrics:
    row['laminae'] = metrics['laminae']['mean']
  if 'angles' in metrics:
    angles = metrics['angles']
    row['angles'] = {'method': angles['method'], 'failed': angles['failed'], **{
        name: {key: (angles[name] or {}).get(key) for key in ('mad', 'bias', 'within', 'r')}
        for name in ('agreement', 'naive')}}
  return row | facts.machine_facts()


def main(argv) -> None:
  del argv
  output = pathlib.Path(_OUTPUT.value)
  rows = {}
  if output.is_file():
    rows = {row['run']: row for row in map(json.loads, output.read_text().splitlines())}
  folders = sorted(path.parent for path in pathlib.Path(_RUNS.value).glob('*_quick/report'))
  if not folders:
    raise ValueError(f'{_RUNS.value} has no finished run folder that ends with _quick.')
  rows |= {folder.name: read_run(folder) for folder in folders}
  output.write_text(''.join(json.dumps(row) + '\n' for row in rows.values()))


if __name__ == '__main__':
  cli.run(main)
