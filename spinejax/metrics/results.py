"""Results of tests: what `metrics` and `evaluate` compute and `report` shows.

The attributes are named like the keys of the JSON files. None means undefined.
"""
import dataclasses
import math
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from spinejax.measurement.results import AngleResult

# {metric: {class or mean: value}}, see `metrics.segmentation`.
ClassTable: TypeAlias = Mapping[str, Mapping[str, float | None]]
# {metric: {'all' or region: value}}, see `metrics.laminae`.
RegionTable: TypeAlias = Mapping[str, Mapping[str, float | None]]
Interval: TypeAlias = tuple[float, float]


@dataclasses.dataclass(frozen=True)
class Decision:
  """Numbers of cases by the answers to a yes-or-no question, with the reference as the truth."""
  tp: int
  fn: int
  fp: int
  tn: int
  sensitivity: float | None  # tp / (tp + fn)
  specificity: float | None  # tn / (tn + fp)
  from_deg: float | None = None  # angle from which the answer is yes, in `BandAgreement.at_least`


@dataclasses.dataclass(frozen=True)
class BandAgreement:
  """Whether two measurements put each case into the same band of severity."""
  names: tuple[str, ...]  # of the bands, by rising angle
  limits: tuple[float | None, ...]  # upper limits in degrees, excluded; the last is None
  confusion: tuple[tuple[int, ...], ...]  # number of cases [reference][other]
  accuracy: float | None  # share of the cases in the same band
  kappa: float | None  # Cohen's kappa with linear weights
  each: Mapping[str, Decision]  # {name: this band against all others}
  at_least: Mapping[str, Decision]  # {name: this band or a higher one}, without the first band


@dataclasses.dataclass(frozen=True)
class Smape:
  """Symmetric mean absolute percentage error."""
  smape: float | None  # in percent
  smape_cases: int  # number of cases in the mean
  undefined: Mapping[str, str]  # {attribute: why it is None}


@dataclasses.dataclass(frozen=True)
class Agreement:
  """Agreement of two measurements of one angle per case, with d = other - reference.

  Names that end in `_ci` are confidence intervals.
  """
  pairs: int  # cases with both angles
  left_out: int  # cases without one of them
  mad: float | None  # mean of |d|
  mad_sd: float | None
  bias: float | None  # mean of d
  bias_ci: Interval | None
  sd: float | None  # of d
  limits: Interval | None  # of agreement: bias ± 1.96 sd
  lower_limit_ci: Interval | None
  upper_limit_ci: Interval | None
  within: float | None  # share of the cases with |d| <= limit
  num_within: int
  limit: float
  r: float | None  # Pearson's correlation
  r_ci: Interval | None
  r2: float | None
  icc2_1: float | None  # intraclass correlations, see `agreement.icc`
  icc2_1_ci: Interval | None
  icc3_1: float | None
  icc3_1_ci: Interval | None
  sem: float | None  # standard error of measurement
  mdc95: float | None  # minimal detectable change
  smape: float | None
  smape_cases: int
  bands: BandAgreement
  confidence: float  # of the intervals
  undefined: Mapping[str, str]  # {attribute: why it is None}

  def to_json(self) -> dict[str, Any]:
    """The content of JSON files; `from_deg` stands only where it is defined."""
    content = dataclasses.asdict(self)
    for decision in content['bands']['each'].values():
      del decision['from_deg']
    return content


@dataclasses.dataclass(frozen=True)
class CaseAngle:
  """The largest angle of a case, and its reference."""
  reference_deg: float | None  # exact angle of a phantom, else the angle of the true mask
  angle_deg: float | None  # measured on the predicted mask
  naive_deg: float | None  # between the lines themselves, if the method has such an angle
  band: str | None  # band, status and flags are those of `AngleResult`
  status: str
  flags: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class CaseResult:
  """One test case at its original size."""
  name: str
  overlap: ClassTable  # of `segmentation.case_metrics`
  laminae: RegionTable | None = None  # of a volume, from `laminae.case_metrics`
  angle: CaseAngle | None = None  # if the config asks for it


@dataclasses.dataclass(frozen=True)
class NetworkScores:
  """Scores over the pixels of the images that the network sees."""
  cross_entropy: float  # mean over the cases
  accuracy: float  # share of all pixels


@dataclasses.dataclass(frozen=True)
class SecondsPerImage:
  """Time of a prediction, from gray levels to mask and probabilities at the original size.

  Reading, scoring and measuring are excluded, and so are the first batch, which warms up, and a
  last one that is not full. The time of a batch is divided by its number of images.
  """
  mean: float
  median: float
  images: int  # that were timed


@dataclasses.dataclass(frozen=True)
class LaminaeSummary:
  """Mean and deviation over the test volumes in which a metric is defined."""
  mean: RegionTable
  sd: RegionTable
  # {noise in voxels: Dice of a perfect localizer}; empty unless labels are cubes.
  localizer_dice: Mapping[str, float] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class AngleSummary:
  """Angles of all test cases."""
  method: str
  reference: str  # 'phantom truth' or 'true masks'
  failed: int  # cases without an angle
  agreement: Agreement  # of the measured angles with the reference
  naive: Agreement | None  # of the naive angles, if the method has them


@dataclasses.dataclass(frozen=True)
class TestResult:
  """The test of one checkpoint: the content of test_metrics.json."""
  __test__ = False  # pytest collects no tests from it

  step: int  # of the checkpoint
  per_image: ClassTable  # tables of `segmentation.summarize`; empty without cases
  pooled: ClassTable
  cases: Mapping[str, CaseResult]
  auc: Mapping[str, float | None]  # {class: area under the ROC curve}
  at_network_size: NetworkScores | None = None  # None without cases
  laminae: LaminaeSummary | None = None  # of volumes
  angles: AngleSummary | None = None  # if the config asks for them
  seconds_per_image: SecondsPerImage | None = None  # None without two full batches

  def to_json(self) -> dict[str, Any]:
    """The content of test_metrics.json, where the results of cases stand by kind."""
    cases = self.cases.values()
    content: dict[str, Any] = {
        'step': self.step, 'per_image': self.per_image, 'pooled': self.pooled,
        'cases': {case.name: case.overlap for case in cases}, 'auc': self.auc}
    if self.at_network_size:
      content['at_network_size'] = dataclasses.asdict(self.at_network_size)
    if self.seconds_per_image:
      content['seconds_per_image'] = dataclasses.asdict(self.seconds_per_image)
    if self.angles:
      naive = self.angles.naive
      content['angles'] = {
          **dataclasses.asdict(self.angles), 'agreement': self.angles.agreement.to_json(),
          'naive': naive and naive.to_json(),
          'cases': {case.name: dataclasses.asdict(case.angle) for case in cases if case.angle}}
    if self.laminae:
      content['laminae'] = {
          'cases': {case.name: case.laminae for case in cases if case.laminae},
          **dataclasses.asdict(self.laminae)}
      if not self.laminae.localizer_dice:
        del content['laminae']['localizer_dice']
    return content

  @classmethod
  def from_json(cls, content: Any) -> 'TestResult':
    """Reads what `to_json` wrote; ValueError for other content and for values of another kind."""
    try:
      laminae, angles = {**(content.get('laminae') or {})}, {**(content.get('angles') or {})}
      case_laminae, case_angles = laminae.pop('cases', {}), angles.pop('cases', {})
      cases = {name: {'name': name, 'overlap': overlap, 'laminae': case_laminae.get(name),
                      'angle': case_angles.get(name)}
               for name, overlap in content['cases'].items()}
      return _read(cls, {**content, 'cases': cases, 'laminae': laminae or None,
                         'angles': angles or None})
    except (AttributeError, KeyError, TypeError, OverflowError) as error:
      raise ValueError('expected the result of a test with step, tables and cases, got other '
                       f'content ({type(error).__name__}: {error}).') from error


@dataclasses.dataclass(frozen=True)
class RocCurve:
  """A ROC curve for drawing."""
  fpr: tuple[float, ...]  # false and true positive rates, from 0 to 1; empty if undefined
  tpr: tuple[float, ...]
  auc: float | None  # area under the curve


def curves_from_json(content: Any) -> Mapping[str, RocCurve]:
  """Reads the content of roc.json, {class: curve}; ValueError for other content."""
  try:
    return _read(Mapping[str, RocCurve], content)
  except (AttributeError, KeyError, TypeError, OverflowError) as error:
    raise ValueError(f'expected ROC curves, got other content ({error}).') from error


@dataclasses.dataclass(frozen=True, eq=False)
class AttentionMaps:
  """What a network attended to in one image, at its size H x W; None for what it does not have."""
  prediction: np.ndarray  # predicted classes, int [H,W]
  key: np.ndarray | None = None  # probabilities of the key map, float [H,W,K]
  affinity: np.ndarray | None = None  # weights of the classes in each channel, float [C,K]
  rebuilt: np.ndarray | None = None  # length of the features rebuilt from the key map, float [H,W]
  channels: np.ndarray | None = None  # weights of all channels in each channel, float [C,C]
  positions: np.ndarray | None = None  # weights of all pixels in one pixel, float [H,W]
  pixel: tuple[int, int] | None = None  # row and column of this pixel at the network's size


@dataclasses.dataclass(frozen=True)
class StressScore:
  """One run on one phantom of the stress suite."""
  dice: float | None  # mean of the foreground classes
  bone_dice: float | None  # all foreground classes as one
  auc: float | None  # of the foreground against the background, over the pixels of the image
  error_deg: float | None  # absolute error of the largest angle; None without an angle
  status: str | None  # of the angle: 'ok', 'partial' or 'fail'; None if the run measures none


def stress_scores_from_json(content: Any) -> Mapping[str, StressScore]:
  """Reads {case: score} as `dataclasses.asdict` gives it; ValueError for other content."""
  try:
    return _read(Mapping[str, StressScore], content)
  except (AttributeError, KeyError, TypeError, OverflowError) as error:
    raise ValueError(f'expected scores of cases, got other content ({error}).') from error


@dataclasses.dataclass(frozen=True)
class ShownCase:
  """One view of a test case that the report shows."""
  name: str  # of the case, with the view if it is a volume
  role: str  # 'best', 'median' or 'worst' by mean Dice of the foreground classes
  image: np.ndarray  # gray levels [H,W]
  label: np.ndarray  # true classes, int [H,W]
  prediction: np.ndarray  # predicted classes, int [H,W]
  probs: np.ndarray  # float [H,W,K]
  dice: float | None  # mean over the foreground classes
  angle: AngleResult | None  # shown on the view along the spine
  interlaced: bool  # adds a picture with image and mask in alternate rows
  maps: AttentionMaps | None = None  # of a network with attention


@dataclasses.dataclass(frozen=True, eq=False)
class ComparedCase:
  """One test case as several runs segment it; a volume is shown by its coronal projection."""
  name: str
  role: str  # 'best', 'median' or 'worst' of the first run; '' if it was asked for
  image: np.ndarray  # gray levels [H,W]
  label: np.ndarray  # true classes, int [H,W]
  masks: Mapping[str, np.ndarray]  # {run: predicted classes, int [H,W]}
  dice: Mapping[str, float | None]  # {run: mean over the foreground classes}
  probs: Mapping[str, np.ndarray]  # {run: of any foreground class, float [H,W]}, or empty


@dataclasses.dataclass(frozen=True)
class Evaluation:
  """What `evaluate` gives to the report."""
  result: TestResult
  roc: Mapping[str, RocCurve]  # by class; empty without test cases
  shown_cases: tuple[ShownCase, ...]


def best_median_worst(scores: Sequence[float | None]) -> dict[int, str]:
  """{index: role} of the best, the median and the worst defined score, in this order.

  Two scores are the best and the worst, one is the best.
  """
  defined = {i: score for i, score in enumerate(scores) if score is not None}
  order = sorted(defined, key=lambda i: -defined[i])
  if len(order) < 3:
    return dict(zip(order, ('best', 'worst')))
  return {order[0]: 'best', order[len(order) // 2]: 'median', order[-1]: 'worst'}


def mean_sd(values: Iterable[float | None]) -> tuple[float | None, float | None, int]:
  """Mean, standard deviation (n - 1 degrees of freedom) and number n of the defined values."""
  defined = [value for value in values if value is not None]
  return (float(np.mean(defined)) if defined else None,
          float(np.std(defined, ddof=1)) if len(defined) > 1 else None, len(defined))


def _read(kind: Any, value: Any, name: str = '') -> Any:
  """A value of JSON as `kind`, the type of a dataclass, of its fields or of their entries."""
  origin, arguments = typing.get_origin(kind), typing.get_args(kind)
  if origin is types.UnionType:  # with None
    return None if value is None else _read(arguments[0], value, name)
  if origin is Mapping:
    return {key: _read(arguments[1], item, key) for key, item in value.items()}
  if origin is tuple:
    return tuple(_read(arguments[0], item, name) for item in value)
  if isinstance(kind, type) and dataclasses.is_dataclass(kind):
    return kind(**{key: _read(field, value[key], key)
                   for key, field in typing.get_type_hints(kind).items() if key in value})
  if kind is not str and (isinstance(value, bool) or not isinstance(value, (int, float))
                          or not math.isfinite(value)):
    raise ValueError(f'expected a number for {name}, got {value!r}.')
  return value
