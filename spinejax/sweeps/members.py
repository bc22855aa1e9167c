"""The members of a sweep: one run for each item, such as those of a config's `sweep()`."""
import collections
import dataclasses
import os
import pathlib
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict

from spinejax import config as config_lib
from spinejax import runs

SEED = 'seed'        # the override that members of a group differ in
VARIANT = 'variant'  # the override that is no field of the config


@dataclasses.dataclass(frozen=True)
class Member:
  """One run of the sweep; `name` is that of its folder."""
  name: str
  overrides: dict[str, Any]  # such as {'variant': 'ours', 'seed': 1}
  config: ConfigDict
  arguments: list[str]       # flags of spinejax.main
  workdir: pathlib.Path

  @property
  def command(self) -> list[str]:
    return [sys.executable, '-m', 'spinejax.main', *self.arguments]

  @property
  def log(self) -> pathlib.Path:
    return self.workdir.with_name(f'{self.name}.log')


def read_items(config: str, table: str = '') -> list[dict[str, Any]]:
  """The overrides that sweep() of a config file yields; with a `table`, those of TABLES[table].

  Raises ValueError without a sweep() or such a table.
  """
  file = config.partition(':')[0]
  module = config_lib.open_config(config).module
  if not hasattr(module, 'sweep'):
    raise ValueError(f'{file} has no sweep(); give --grid=FIELD=VALUE,VALUE, or see '
                     'configs/seam.py for an example.')
  items = list(map(dict, module.sweep()))
  if not table:
    return items
  tables = getattr(module, 'TABLES', {})
  if table not in tables:
    raise ValueError(f'{file} has no table {table!r}; it has {", ".join(tables) or "none"}.')
  rows = [dict(row) for row in tables[table]]
  return sorted((item for item in items if without(item, SEED) in rows),
                key=lambda item: rows.index(without(item, SEED)))


def without(overrides: Mapping[str, Any], *names: str) -> dict[str, Any]:
  """The overrides but those of the `names`."""
  return {name: value for name, value in overrides.items() if name not in names}


def name_config(config: str, overrides: Mapping[str, Any]) -> str:
  """FILE:VARIANT of a member: the variant of its overrides, then that of `config`, or both."""
  file, _, given = config.partition(':')
  variant = ','.join(filter(None, [overrides.get(VARIANT, ''), given]))
  return f'{file}:{variant}' if variant else file


def create_members(config: str, items: Iterable[Mapping[str, Any]], output: str | os.PathLike,
                   extra: Mapping[str, Any] | None = None) -> list[Member]:
  """One member for each item, in their order, with run folders in `output`.

  An item holds dotted fields and may hold 'variant', to which a ':VARIANT' of `config` is added.
  `extra` are dotted overrides for all members. Raises ValueError for items that do not fit the
  config.
  """
  extra = dict(extra or {})
  members: dict[str, Member] = {}
  for overrides in items:
    fields = without(overrides, VARIANT)
    if twice := sorted(set(fields) & set(extra)):
      raise ValueError(f'the sweep changes {twice[0]}; leave out --config.{twice[0]}, or '
                       f'take some of the members with --only={twice[0]}=VALUE.')
    which, changed = name_config(config, overrides), {**fields, **extra}
    member_config = config_lib.load_config(which)
    try:
      member_config.update_from_flattened_dict(changed)
    except (KeyError, TypeError, ValueError) as error:
      raise ValueError(f'{which} does not take {fields} of the sweep: '
                       f'{str(error).strip().splitlines()[-1]}') from error
    name = label(overrides)
    if name in members:
      raise ValueError(f'the sweep has {name} twice.')
    workdir = pathlib.Path(output) / name
    flags = [f'--config.{key}={value}' for key, value in changed.items()]
    members[name] = Member(name, dict(overrides), member_config,
                           [f'--config={which}', *flags, f'--workdir={workdir}'], workdir)
  return list(members.values())


def label(overrides: Mapping[str, Any]) -> str:
  """A name such as 'fpn_seed=0', in characters that need no quotes."""
  parts = [str(value) if key == VARIANT else f'{key}={str(value).strip("()")}'
           for key, value in overrides.items()]
  return '_'.join(re.sub(r'[^\w.=+-]+', '-', part).strip('-') for part in parts) or 'default'


def select_members(members: Sequence[Member], only: Sequence[str]) -> list[Member]:
  """The members that match `only`, conditions 'KEY=VALUE'.

  Several values of one key are alternatives; several keys must all match. Raises ValueError for a
  key or a value that no member has.
  """
  wanted = collections.defaultdict(set)
  for condition in only:
    key, equals, value = condition.partition('=')
    known = dict.fromkeys(str(member.overrides[key]) for member in members
                          if key in member.overrides)
    if not equals or value not in known:
      keys = dict.fromkeys(key for member in members for key in member.overrides)
      raise ValueError(f'--only={condition} fits no member; '
                       + (f'{key} is {", ".join(known)}.' if known else
                          f'KEY=VALUE is needed, with a key of {", ".join(keys)}.'))
    wanted[key].add(value)
  return [member for member in members if all(
      str(member.overrides.get(key)) in values for key, values in wanted.items())]


def is_finished(member: Member) -> bool:
  """Whether the member has been trained and tested; ValueError for a run of another config."""
  files = ('config.json', 'test_metrics.json', 'report/index.html')
  if not all((member.workdir / name).is_file() for name in files):
    return False
  runs.check(str(member.workdir), 'config', member.config)
  return True
