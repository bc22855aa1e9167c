"""Items of a sweep from flags: grids, and random draws from values and ranges."""
import dataclasses
import functools
import operator
import random
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from absl import flags
from ml_collections import ConfigDict, config_flags

from spinejax import config as config_lib
from spinejax.sweeps.members import SEED, VARIANT, name_config, without

_NUMBER = r'([-+.\de]*\d\.?)'
_RANGE = re.compile(rf'(log:)?{_NUMBER}\.\.{_NUMBER}', re.IGNORECASE)
_DRAWS = 100  # for each different item; with fewer than N combinations, N are not found


@dataclasses.dataclass(frozen=True)
class Axis:
  """A field of the config, or 'variant', and its values as flags have them."""
  field: str
  values: tuple[str, ...]

  @property
  def range(self) -> tuple[str, ...]:
    """('log:' or '', low, high) of a range; () for values."""
    match = _RANGE.fullmatch(self.values[0])
    return match.groups('') if match and len(self.values) == 1 else ()


def parse_axis(flag: str, text: str) -> Axis:
  """Reads FIELD=VALUE,VALUE; commas in brackets do not separate values.

  Raises ValueError, which names the flag, for another form.
  """
  field, _, values = text.partition('=')
  parts, depth = [''], 0
  for character in values:
    depth += (character in '([{') - (character in ')]}')
    if character == ',' and not depth:
      parts.append('')
    else:
      parts[-1] += character
  if not field or not all(parts):
    raise ValueError(f'--{flag}={text}: FIELD=VALUE,VALUE is needed, such as '
                     f'--{flag}=optimizer.learning_rate=1e-3,2e-3.')
  return Axis(field, tuple(parts))


def parse_value(config: ConfigDict, field: str, text: str) -> Any:
  """The value of `field` that the flag --config.FIELD=TEXT gives.

  Raises ValueError for a field that the config does not have, and for a wrong value.
  """
  config_lib.check_field(config, field)
  keys = field.split('.')
  value = functools.reduce(operator.getitem, keys, config)
  if isinstance(value, ConfigDict):
    raise ValueError(f'--config.{field} is a group of fields; name one of {", ".join(value)}.')
  alone = functools.reduce(lambda inner, key: {key: inner}, reversed(keys), value)
  known, argv = flags.FlagValues(), ['', f'--config.{field}={text}']
  config_flags.DEFINE_config_dict('config', ConfigDict(alone), flag_values=known, sys_argv=argv)
  try:
    known(argv)
  except flags.Error as error:
    raise ValueError(f'{error}.') from None
  return config_flags.get_override_values(known['config'])[field]


def expand(config: str, items: Iterable[Mapping[str, Any]], axis: Axis) -> list[dict[str, Any]]:
  """Every item with every value of the axis, which stands last but for the seed.

  Raises ValueError for a field that an item has already, and as `parse_value`.
  """
  if axis.range:
    raise ValueError(f'{axis.field}={axis.values[0]} is a range; --random=N draws from ranges, and '
                     'a seed needs its values.')
  expanded = []
  for item in items:
    if axis.field in item:
      raise ValueError(f'the sweep changes {axis.field} twice; give its values once.')
    for text in axis.values:
      new = without(item, SEED) | {axis.field: _parse(name_config(config, item), axis.field, text)}
      expanded.append(new | {SEED: item[SEED]} if SEED in item else new)
  return expanded


def create_items(config: str, axes: Sequence[Axis], draws: int | None = None, seed: int = 0
                 ) -> list[dict[str, Any]]:
  """The items of a grid: all combinations of the values, or `draws` different random ones.

  A random item draws each field from its values, all equally likely, or from its range: 'low..high'
  uniform, 'log:low..high' uniform in the logarithm, numbers of four digits. Every item is combined
  with all values of a seed. The first items of a longer list are those of a shorter one.

  Raises ValueError for wrong axes, and where there are fewer combinations than `draws`.
  """
  order = sorted(axes, key=lambda axis: (axis.field == SEED, axis.field != VARIANT))
  if not draws:
    return functools.reduce(functools.partial(expand, config), order, [{}])
  source = random.Random(seed)
  drawn: dict[tuple, dict[str, Any]] = {}
  for _ in range(_DRAWS * draws):
    item: dict[str, Any] = {}
    for axis in order:
      if axis.field != SEED:
        item[axis.field] = _draw(config, item, axis, source.random())
    drawn.setdefault(tuple(item.items()), item)
    if len(drawn) == draws:
      break
  else:
    raise ValueError(f'--random={draws}: the grid has only {len(drawn)} combinations.')
  return functools.reduce(functools.partial(expand, config),
                          [axis for axis in order if axis.field == SEED], list(drawn.values()))


@functools.cache
def _load(config: str) -> ConfigDict:
  return config_lib.load_config(config)


@functools.cache
def _parse(config: str, field: str, text: str) -> Any:
  return text if field == VARIANT else parse_value(_load(config), field, text)


def _draw(config: str, item: Mapping[str, Any], axis: Axis, position: float) -> Any:
  """The value at a position in [0, 1)."""
  parse = functools.partial(_parse, name_config(config, item), axis.field)
  if not axis.range:
    return parse(axis.values[int(position * len(axis.values))])
  logarithmic, *ends = axis.range
  low, high = map(parse, ends)
  if type(low) not in (int, float):
    raise ValueError(f'{axis.field} is no number; give its values as {axis.field}=VALUE,VALUE.')
  if not low < high or logarithmic and low <= 0:
    raise ValueError(f'{axis.field}={axis.values[0]}: the first number must be below the second'
                     + (' and above 0.' if logarithmic else '.'))
  if type(low) is int:
    return int(_between(low, high + 1, position, logarithmic))
  return min(max(float(f'{_between(low, high, position, logarithmic):.4g}'), low), high)


def _between(low: float, high: float, position: float, logarithmic: str) -> float:
  return low * (high / low) ** position if logarithmic else low + (high - low) * position
