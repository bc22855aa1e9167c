"""Exact phantoms that several tests measure."""
import pytest

from spinejax import phantoms


@pytest.fixture(scope='session')
def vpi_cases():
  return [phantoms.vpi((11, i), (512, 128), 0.0) for i in range(6)]


@pytest.fixture(scope='session')
def spa_case():
  return phantoms.vpi((11, 4), (512, 128), 1.0, family='double_major')


@pytest.fixture(scope='session')
def xray_cases():
  return [phantoms.xray((11, i), (600, 225), 0.0) for i in (0, 1, 2, 15)]
