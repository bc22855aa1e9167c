"""Progress of a run: metrics.jsonl, TensorBoard, a progress bar or plain lines."""
import contextlib
import json
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

from rich import progress
from rich.console import Console

from spinejax import runs


class MetricsLog:
  """Appends rows {"step", "phase", name: value} to metrics.jsonl and, if installed, TensorBoard.

  Opening the log removes the rows after `start_step`, because the resumed run writes them again.
  """

  def __init__(self, workdir: str, start_step: int, writes: bool = True):
    self._writes, self._writer = writes, None
    if not writes:
      return
    self._path = pathlib.Path(workdir) / 'metrics.jsonl'
    kept = [row for row in read_metrics(workdir) if row['step'] <= start_step]
    runs.write_text(self._path, ''.join(json.dumps(row) + '\n' for row in kept))
    with contextlib.suppress(ImportError):
      from tensorboardX import SummaryWriter
      self._writer = SummaryWriter(f'{workdir}/tensorboard', purge_step=start_step + 1)

  def write(self, step: int, phase: str, values: Mapping[str, Any]) -> None:
    """Writes one row. Values of None are left out; values that are not finite become null."""
    if not self._writes:
      return
    values = {name: float(value) for name, value in values.items() if value is not None}
    row = {name: value if abs(value) < float('inf') else None for name, value in values.items()}
    try:
      with self._path.open('a') as file:
        file.write(json.dumps({'step': step, 'phase': phase, **row}) + '\n')
    except OSError as error:
      raise OSError(f'{self._path} cannot be written ({error.strerror}); make room and run the '
                    'same command to resume.') from error
    if self._writer is not None:
      for name, value in values.items():
        self._writer.add_scalar(f'{phase}/{name}', value, step)

  def close(self) -> None:
    if self._writer is not None:
      self._writer.close()


def read_metrics(workdir: str) -> list[dict[str, Any]]:
  """Rows of metrics.jsonl. Broken lines, such as the last one of a killed run, are left out."""
  path = pathlib.Path(workdir) / 'metrics.jsonl'
  rows = []
  for line in path.read_bytes().splitlines() if path.is_file() else []:
    with contextlib.suppress(ValueError, RecursionError):
      rows.append(json.loads(line))
  return [row for row in rows if isinstance(row, dict) and {'step', 'phase'} <= row.keys()
          and isinstance(row['step'], int)]


class Progress:
  """A progress bar on a terminal, plain lines elsewhere."""

  def __init__(self, description: str, total: int, console: Console, start: int = 0):
    self.bar = progress.Progress(
        progress.TextColumn('{task.description}'), progress.BarColumn(),
        progress.MofNCompleteColumn(), progress.TimeRemainingColumn(),
        progress.TextColumn('{task.fields[note]}'), console=console,
        disable=not console.is_terminal)
    self._task = self.bar.add_task(description, total=total, completed=start, note='')
    if self.bar.disable:
      console.print(f'{description}: {total - start} to go', highlight=False)

  def advance(self, amount: int = 1) -> None:
    self.bar.advance(self._task, amount)

  def note(self, text: str) -> None:
    """Shows the latest values beside the bar, or as a line."""
    if self.bar.disable:
      self.bar.console.print(text, highlight=False)
    else:
      self.bar.update(self._task, note=text)


@contextlib.contextmanager
def progress_of(description: str, total: int, console: Console, start: int = 0
                ) -> Iterator[Progress]:
  """A `Progress` that is closed at the end, also after an error."""
  shown = Progress(description, total, console, start)
  with shown.bar:
    yield shown
