"""Every reader reads mutated files or refuses them in one sentence; a seeded handful of each."""
import tracemalloc
import zlib

import pytest

from spinejax.readers import volumes
from tests.faults import fuzz, inputs

pytestmark = pytest.mark.filterwarnings('ignore')
SLOW = ('nifti', 'nrrd', 'mha', 'npz', 'weights_npz', 'png')  # their bombs are large


@pytest.mark.parametrize('name', [name for name in inputs.READERS if name != 'checkpoint'])
def test_mutated_files_are_read_or_refused(tmp_path, name):
  found = {}
  numbers = range(1000, 1010) if name in SLOW else range(10)  # the first ones are the bombs
  fuzz.fuzz(name, numbers, 0, tmp_path, found.__setitem__)
  assert len(found) == 10
  assert {number: fault for number, fault in found.items() if fault} == {}


def test_no_pickle_is_opened(tmp_path, capfd):
  for name, write in (('pth', inputs.write_pth), ('npz', inputs.write_weights_npz)):
    (tmp_path / name).mkdir()
    write(tmp_path / name)
    inputs.read_weights(tmp_path / name)
  assert 'a pickle was opened' not in capfd.readouterr().out


def test_a_volume_unpacks_to_no_more_than_it_declares(tmp_path):
  header = ('ObjectType = Image\nNDims = 3\nDimSize = 4 4 4\nElementType = MET_UCHAR\n'
            'CompressedData = True\nElementDataFile = LOCAL\n')
  (tmp_path / 'a.mha').write_bytes(header.encode() + zlib.compress(bytes(64 << 20), 9))
  tracemalloc.start()
  try:
    with pytest.raises(ValueError):
      volumes.read_volume(tmp_path / 'a.mha')
    assert tracemalloc.get_traced_memory()[1] < 8 << 20
  finally:
    tracemalloc.stop()
