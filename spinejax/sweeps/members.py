"""The members of a sweep: one run for each item of a config's `sweep()`."""
import collections
import dataclasses
import os
import pathlib
import re
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict

from spinejax import config as config_lib
from spinejax import runs


@dataclasses.dataclass(frozen=True)
class Member:
  """One run of the sweep; `name` is that of its folder."""
  name: str
  overrides: dict[str, Any]  # item of sweep(), such as {'variant': 'ours', 'seed': 1}
  config: ConfigDict
  arguments: list[str]       # flags of spinejax.main
  workdir: pathlib.Path

  @property
  def command(self) -> list[str]:
    return [sys.executable, '-m', 'spinejax.main', *self.arguments]

  @property
  def log(self) -> pathlib.Path:
    return self.workdir.with_name(f'{self.name}.log')


def create_members(config: str, output: str | os.PathLike, extra: Mapping[str, Any] | None = None
                   ) -> list[Member]:
  """The members of a sweep, in the order of sweep(), with run folders in `output`.

  `config` has a ':VARIANT' only if sweep() names no variants. `extra` are dotted overrides for all
  members. Raises ValueError without a sweep() that fits the config.
  """
  extra = dict(extra or {})
  file, _, given = config.partition(':')
  module = config_lib.open_config(config).module
  if not hasattr(module, 'sweep'):
    raise ValueError(f'{file} has no sweep(); see configs/seam.py for an example.')
  members: dict[str, Member] = {}
  for overrides in module.sweep():
    fields = dict(overrides)
    if given and 'variant' in fields:
      raise ValueError(f'sweep() of {file} names the variants; give --config={file} alone.')
    if twice := sorted(set(fields) & set(extra)):
      raise ValueError(f'sweep() of {file} changes {twice[0]}; leave out --config.{twice[0]}, or '
                       f'take some of the members with --only={twice[0]}=VALUE.')
    variant = fields.pop('variant', given)
    which = f'{file}:{variant}' if variant else file
    changed = {**fields, **extra}
    member_config = config_lib.load_config(which)
    try:
      member_config.update_from_flattened_dict(changed)
    except (KeyError, TypeError, ValueError) as error:
      raise ValueError(f'{which} does not take {fields} of sweep(): '
                       f'{str(error).strip().splitlines()[-1]}') from error
    parts = [str(value) if key == 'variant' else f'{key}={value}'
             for key, value in overrides.items()]  # in characters that need no quotes
    name = '_'.join(re.sub(r'[^\w.=+-]+', '-', part).strip('-') for part in parts) or 'default'
    if name in members:
      raise ValueError(f'sweep() yields {name} twice.')
    workdir = pathlib.Path(output) / name
    flags = [f'--config.{key}={value}' for key, value in changed.items()]
    members[name] = Member(name, dict(overrides), member_config,
                           [f'--config={which}', *flags, f'--workdir={workdir}'], workdir)
  return list(members.values())


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
