"""Former names of `spinejax.handoff`; goes away as soon as nothing uses them."""
from spinejax import handoff
from spinejax.handoff import tables
from spinejax.handoff.cases import FORMATS, require_formats  # noqa: F401
from spinejax.handoff.places import AXES  # noqa: F401
from spinejax.measure.results import AngleResult


def _typed(result):
  return result if isinstance(result, AngleResult) else AngleResult.from_json(result)


def write_case(folder, name, mask, result, *, formats=('nifti', 'seg_nrrd', 'markups'), **facts):
  return handoff.write_case(folder, handoff.Case(name, mask, _typed(result), **facts), formats)


def write_summary(path, results):
  tables.write_summary(path, {name: _typed(result) for name, result in results.items()})


def write_curves(path, results):
  tables.write_curves(path, {name: _typed(result) for name, result in results.items()})
