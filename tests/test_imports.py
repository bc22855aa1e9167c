"""Imports go one way: rooms, then what works on them, then the commands."""
import ast
import pathlib

import pytest

from tests import tiny

PACKAGE = tiny.ROOT / 'spinejax'
RANKS = (
    {'cli', 'measure'},
    {'data', 'losses', 'metrics', 'models'},
    {'steps', 'optimizers', 'checkpoints', 'logs', 'runs', 'report'},
    {'styles', 'inference', 'outputs', 'evaluate', 'train'},
    {'main', 'predict', 'compare', 'agreement', 'measure.__main__', 'export', 'bench',
     'metrics.cost', 'losses.toy'},
)
RANK = {room: rank for rank, rooms in enumerate(RANKS) for room in rooms}
FILES = sorted(path for path in PACKAGE.rglob('*.py') if path != PACKAGE / '__init__.py')


def room(module: str) -> str:
  """Room of a module: its top-level name, or its own where it is a command inside a room."""
  name = module.removeprefix('spinejax.')
  doors = [place for place in RANK if '.' in place and f'{name}.'.startswith(f'{place}.')]
  return doors[0] if doors else name.split('.')[0]


def room_of(path: pathlib.Path) -> str:
  return room('.'.join(path.relative_to(PACKAGE).with_suffix('').parts))


def imported_rooms(path: pathlib.Path) -> set[str]:
  rooms = set()
  for node in ast.walk(ast.parse(path.read_text())):
    if isinstance(node, ast.ImportFrom) and f'{node.module}.'.startswith('spinejax.'):
      rooms |= {room(f'{node.module}.{alias.name}') for alias in node.names
                if alias.name != '__version__'}
    elif isinstance(node, ast.Import):
      rooms |= {room(alias.name) for alias in node.names if alias.name.startswith('spinejax.')}
  return rooms


@pytest.mark.parametrize('path', FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_one_way(path):
  room = room_of(path)
  for other in imported_rooms(path) - {room}:
    assert RANK[other] <= RANK[room], f'{room} imports {other}'
    assert not (RANK[other] == RANK[room] == 1), f'{room} and {other} are rooms side by side'


def test_every_room_has_its_place():
  assert {room_of(path) for path in FILES} == set(RANK)


def test_from_main_to_a_loss_are_four_files():
  chain = ['main.py', 'train.py', 'losses/__init__.py', 'losses/center.py']
  for file, following in zip(chain, chain[1:]):
    assert room_of(PACKAGE / following) in imported_rooms(PACKAGE / file)
