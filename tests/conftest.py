"""Strict settings for every test: two CPU devices, no silent promotion, no persistent state."""
import os
import pathlib

if not os.environ.get('SPINEJAX_TEST_OPTIMIZED'):
  os.environ.setdefault('JAX_DISABLE_MOST_OPTIMIZATIONS', '1')
os.environ.setdefault('JAX_PLATFORMS', 'cpu')
os.environ.setdefault('MPLBACKEND', 'Agg')

import jax  # noqa: E402
import pytest  # noqa: E402

jax.config.update('jax_num_cpu_devices', 2)
jax.config.update('jax_numpy_dtype_promotion', 'strict')
jax.config.update('jax_numpy_rank_promotion', 'raise')


@pytest.fixture(scope='session')
def shared() -> pathlib.Path:
  """Folder of reference outputs and real images beside the checkout; tests skip without it."""
  folder = pathlib.Path(os.environ.get('SPINEJAX_SHARED', pathlib.Path(__file__).parents[2] / 'shared'))
  if not folder.is_dir():
    pytest.skip('the folder of reference data beside the checkout is absent')
  return folder
