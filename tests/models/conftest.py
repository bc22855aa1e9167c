"""Settings of all tests of networks."""
import jax
import pytest

from spinejax.models import resnet


@pytest.fixture(autouse=True)
def shallow_backbone(monkeypatch):
  """A ResNet of one block in each stage, named 'shallow'."""
  monkeypatch.setitem(resnet.BACKBONES, 'shallow', ((1, 1, 1, 1), True))


@pytest.fixture(autouse=True)
def highest_precision():
  with jax.default_matmul_precision('highest'):
    yield
