"""Sizes of memory, and the refusal of what does not fit."""
import pytest

from spinejax.readers import memory


def test_too_little_memory_is_one_sentence():
  memory.require(10, 'a thing', 'wait', 10)
  with pytest.raises(ValueError, match='a thing needs 3 GiB of memory and 2 GiB are left; wait.'):
    memory.require(3 * 2**30, 'a thing', 'wait', 2 * 2**30)
  with pytest.raises(ValueError, match=r'needs 1.13e\+15 GiB'):
    memory.require(2**80, 'all', 'wait')


@pytest.mark.parametrize('text, expected', [
    ('4GB', 4 * 10**9), ('1.5GiB', 3 * 2**29), ('800 mb', 8 * 10**8), ('.5kib', 512),
    ('2TB', 2 * 10**12)])
def test_sizes_of_memory_are_read(text, expected):
  assert memory.parse(text) == expected


@pytest.mark.parametrize('text', ['4', 'GB', '-1GB', '0GB', '1e3GB', '4 GB more', 'nan', '4G',
                                  '9' * 40 + 'GB', '1.2.3GB'])
def test_other_sizes_are_one_sentence(text):
  with pytest.raises(ValueError, match='memory is given as 4GB, 800MB or 1.5GiB, not'):
    memory.parse(text)
