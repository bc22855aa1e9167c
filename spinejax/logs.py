"""What a run says while it works: metrics.jsonl, TensorBoard, a progress bar or plain lines."""
import contextlib
import json
import os
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import Console
from rich import progress


class MetricsLog:
  """Appends rows {"step", "phase", name: value} to metrics.jsonl, and to TensorBoard if there.

  Rows after `start_step` are dropped on opening: the resumed run writes those steps again. Of
  several processes one has `writes`, the others drop what they are given.
  """

  def __init__(self, workdir: str, start_step: int, writes: bool = True):
    self._writes, self._writer = writes, None
    if not writes:
      return
    self._path = pathlib.Path(workdir) / 'metrics.jsonl'
    kept = [row for row in read_metrics(workdir) if row['step'] <= start_step]
    temporary = self._path.with_name('metrics.jsonl.writing')
    temporary.write_text(''.join(json.dumps(row) + '\n' for row in kept))
    os.replace(temporary, self._path)
    self._writer = _tensorboard_writer(workdir, start_step)

  def write(self, step: int, phase: str, values: Mapping[str, Any]) -> None:
    """Writes one row; values that are not finite are written as null."""
    if not self._writes:
      return
    values = {name: float(value) for name, value in values.items() if value is not None}
    row = {name: value if abs(value) < float('inf') else None for name, value in values.items()}
    with self._path.open('a') as file:
      file.write(json.dumps({'step': step, 'phase': phase, **row}) + '\n')
    if self._writer is not None:
      for name, value in values.items():
        self._writer.add_scalar(f'{phase}/{name}', value, step)

  def close(self) -> None:
    if self._writer is not None:
      self._writer.close()


def read_metrics(workdir: str) -> list[dict[str, Any]]:
  """Rows of metrics.jsonl; a last line cut short by a killed run is left out."""
  path = pathlib.Path(workdir) / 'metrics.jsonl'
  rows = []
  for line in path.read_text().splitlines() if path.is_file() else []:
    with contextlib.suppress(json.JSONDecodeError):
      rows.append(json.loads(line))
  return rows


def _tensorboard_writer(workdir: str, start_step: int):
  try:
    from tensorboardX import SummaryWriter
  except ImportError:
    return None
  return SummaryWriter(str(pathlib.Path(workdir) / 'tensorboard'), purge_step=start_step + 1)


class Progress:
  """A progress bar on a terminal, plain lines elsewhere."""

  def __init__(self, description: str, total: int, console: Console, start: int = 0):
    self._console = console
    self._bar = None
    if console.is_terminal:
      self._bar = progress.Progress(
          progress.TextColumn('{task.description}'), progress.BarColumn(),
          progress.MofNCompleteColumn(), progress.TimeRemainingColumn(),
          progress.TextColumn('{task.fields[note]}'), console=console)
      self._bar.start()
      self._task = self._bar.add_task(description, total=total, completed=start, note='')
    else:
      console.print(f'{description}: {total - start} to go', highlight=False)

  def advance(self, amount: int = 1) -> None:
    if self._bar is not None:
      self._bar.advance(self._task, amount)

  def note(self, text: str) -> None:
    """Shows the latest figures: beside the bar, or as a line."""
    if self._bar is not None:
      self._bar.update(self._task, note=text)
    else:
      self._console.print(text, highlight=False)

  def close(self) -> None:
    if self._bar is not None:
      self._bar.stop()


@contextlib.contextmanager
def progress_of(description: str, total: int, console: Console, start: int = 0
                ) -> Iterator[Progress]:
  """`Progress` that is closed whatever happens."""
  bar = Progress(description, total, console, start)
  try:
    yield bar
  finally:
    bar.close()
