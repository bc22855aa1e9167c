"""Writes the tables of the documentation from the files in launch/results.

  python -m benchmarks.tables            writes the tables between their markers
  python -m benchmarks.tables --check    exits with 1 if a table differs from its file

A table stands between `<!-- table: NAME -->` and `<!-- end -->` in README.md or docs/*.md.
"""
import functools
import re
import sys
from collections.abc import Callable
from typing import Any

from absl import flags

from benchmarks import papers, small_tables
from benchmarks.markdown import ROOT, number, read, source_of, table
from spinejax.commands import cli

POSITIONALS = ()
MARKED = re.compile(r'(<!-- table: (\w+) -->\n)(.*?)(<!-- end -->)', re.DOTALL)
_CHECK = flags.DEFINE_bool('check', False, 'Change nothing; exit with 1 if a table is out of date.')


def newest_quick_runs() -> list[dict[str, Any]]:
  """The newest run of each config, those with the most test cases first."""
  rows = sorted(read('quick_runs.jsonl'), key=lambda row: row['date'])
  newest = {row['config']: row for row in rows}
  return sorted(newest.values(), key=lambda row: (-row['cases'], row['config']))


def quick_runs() -> str:
  rows = newest_quick_runs()
  cells = [[f'`{row["config"]}`', str(row['cases']),
            number(row['dice']['mean_foreground'], 3),
            number(row['at_network_size']['accuracy'], 3),
            number(sum(row['durations'].values()) / 60, 1, ' min')] for row in rows]
  return table(['config', 'test phantoms', 'Dice, mean of the foreground classes',
                'pixel accuracy at network size', 'whole run'], cells,
               source_of('quick_runs.jsonl', rows))


def quick_angles() -> str:
  rows = [row for row in newest_quick_runs() if row['angles']]
  cells = []
  for row in rows:
    found, naive = row['angles']['agreement'], row['angles']['naive']
    cells.append([f'`{row["config"]}`', row['angles']['method'],
                  number(found['mad'], 1), number(found['bias'], 1),
                  number(None if found['within'] is None else 100 * found['within'], 0, ' %'),
                  number(found['r'], 2), number(naive['mad'], 1)])
  return table(['network', 'angle', 'MAD', 'bias', 'within 5°', 'r', 'naive MAD'], cells,
               source_of('quick_runs.jsonl', rows))


def measurement() -> str:
  """Errors of exact and spoiled masks, beside those of the first edition on the same masks."""
  rows = read('measurement.jsonl')
  before = {row['row']: row for row in read('measurement_before.jsonl')}
  cells = [[row['row'], *(number(of.get(name), digits) for name, digits in (
      ('mad', 2), ('max', 1), ('covered', 2)) for of in (before.get(row['row'], {}), row)),
            number(row['bias'], 2), number(row.get('naive'), 1), *(
                row[name] for name in ('false_bounds', 'straight', 'mild'))] for row in rows]
  first = rows[0]
  return table(['exact or spoiled masks', 'MAD before', 'MAD', 'largest before', 'largest',
                'interval holds the truth, before', 'now', 'bias', 'naive MAD',
                'false of the bounds', 'straight below 5°', '5 to 10° found'], cells,
               f'{first["cases"]} phantoms per row, seeds ({first["seed"]}, i). '
               + source_of('measurement.jsonl', rows))


def network_angles() -> str:
  """Errors of the angles of networks' masks on phantoms that no run has seen."""
  rows = read('network_angles.jsonl')
  cells = [[f'`{row["workdir"]}`', row['method'], str(row['cases']), *(
      number(row[name], digits) for name, digits in (
          ('mad', 2), ('bias', 2), ('max', 1), ('covered', 2))), *(
              row[name] for name in ('false_bounds', 'straight', 'mild')), str(row['ok_wild'])]
           for row in rows]
  return table(['run', 'angle', 'phantoms', 'MAD', 'bias', 'largest', 'interval holds the truth',
                'false of the bounds', 'straight below 5°', '5 to 10° found',
                'status ok, off by over 10°'], cells, source_of('network_angles.jsonl', rows))


def speed() -> str:
  rows = {(row['system'], row['phase']): row for row in read('bench_cpu.jsonl')
          if row.get('size') == 'quick' and row['status'] == 'ok' and 'torch' in row['sides']}
  cells = []
  for system, phase in rows:
    if phase != 'forward' or (system, 'train') not in rows:
      continue
    forward, step = rows[system, 'forward'], rows[system, 'train']
    times = [number(1e3 * row['sides'][side]['wall_median'], 1)
             for row in (forward, step) for side in ('spinejax', 'torch')]
    ratios = [number(row['ratios']['torch'], 2) for row in (forward, step)]
    cells.append([forward['title'], 'x'.join(map(str, forward['shape'])), *times[:2], ratios[0],
                  *times[2:], ratios[1], number(step['ratios'].get('plain'), 2)])
  last = list(rows.values())
  return table(['milliseconds', 'input', 'forward', 'PyTorch', 'ratio', 'step', 'PyTorch', 'ratio',
                'step to plain Flax'], cells,
               source_of('bench_cpu.jsonl', last)
               + f' PyTorch {last[-1]["versions"]["torch"]}.')


def networks() -> str:
  """Parameters and multiply-adds, and the printed Dice of SADANet beside its wide head."""
  rows = read('networks.jsonl')
  printed = {name: row.printed for name, row in papers.ROWS.items()}
  printed |= {'sadanet:wide': printed['sadanet:ours'], 'sadanet:ours': '–'}
  cells = [[f'`{row["config"]}`', f'{row["parameters"]:,}', number(row['modules'] / 1e9, 2),
            number(row['products'] / 1e9, 2), printed.get(row['config'], '–')] for row in rows]
  return table(['config', 'parameters', 'G multiply-adds', 'with attention', 'Dice in the paper'],
               cells, source_of('networks.jsonl', rows))


def xray() -> str:
  rows = [row for row in read('first_edition.jsonl') if row['table'] == 'xray']
  names = ('dice_spine', 'dice_border', 'dice_both', 'cross_entropy', 'accuracy')
  cells = [[row['variant'], *(number(row[name], 3) for name in names),
            number(row['angle_mad'], 1, '°')] for row in rows]
  return table(['variant', 'Dice spine', 'border', 'both as one', 'cross entropy',
                'pixel accuracy', 'angle MAD'], cells, '`launch/results/first_edition.jsonl`')


TABLES: dict[str, Callable[[], str]] = {function.__name__: function for function in (
    measurement, network_angles, networks, quick_angles, quick_runs, speed, xray)}
TABLES |= {name: functools.partial(lambda make: make(small_tables.read()), make)
           for name, make in small_tables.TABLES.items()}


def render(text: str) -> str:
  """The text with all its tables made anew."""
  return MARKED.sub(lambda match: f'{match[1]}\n{TABLES[match[2]]()}\n{match[4]}', text)


def main(argv) -> int:
  del argv
  outdated = []
  for path in [ROOT / 'README.md', *sorted((ROOT / 'docs').glob('*.md'))]:
    text = path.read_text()
    made = render(text)
    if made != text:
      outdated.append(path.relative_to(ROOT).as_posix())
      if not _CHECK.value:
        path.write_text(made)
  if _CHECK.value and outdated:
    print(f'error: the tables of {", ".join(outdated)} differ from launch/results; run python -m '
          'benchmarks.tables.', file=sys.stderr)
    return 1
  return 0


if __name__ == '__main__':
  cli.run(main)
