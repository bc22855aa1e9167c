"""Results of tests: what `metrics` and `evaluate` compute and `report` shows.

The attributes are named like the keys of the JSON files. None means undefined.
"""
import dataclasses
import math
from collections.abc import Mapping
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
  """Counts of a yes-or-no question, with the reference as the truth.

  Attributes:
    tp, fn, fp, tn: numbers of cases.
    sensitivity: tp / (tp + fn).
    specificity: tn / (tn + fp).
    from_deg: angle from which the answer is yes, of `BandAgreement.at_least`.
  """
  tp: int
  fn: int
  fp: int
  tn: int
  sensitivity: float | None
  specificity: float | None
  from_deg: float | None = None


@dataclasses.dataclass(frozen=True)
class BandAgreement:
  """Whether two measurements put each case into the same band of severity.

  Attributes:
    names: of the bands, by rising angle.
    limits: upper limits in degrees, excluded; the last is None.
    confusion: number of cases [reference][other].
    accuracy: share of the cases in the same band.
    kappa: Cohen's kappa with linear weights.
    each: {name: this band against all others}.
    at_least: {name: this band or a higher one}, without the first band.
  """
  names: tuple[str, ...]
  limits: tuple[float | None, ...]
  confusion: tuple[tuple[int, ...], ...]
  accuracy: float | None
  kappa: float | None
  each: Mapping[str, Decision]
  at_least: Mapping[str, Decision]


@dataclasses.dataclass(frozen=True)
class Smape:
  """Symmetric mean absolute percentage error.

  Attributes:
    smape: in percent.
    smape_cases: number of cases in the mean.
    undefined: {attribute: why it is None}.
  """
  smape: float | None
  smape_cases: int
  undefined: Mapping[str, str]


@dataclasses.dataclass(frozen=True)
class Agreement:
  """Agreement of two measurements of one angle per case, with d = other - reference.

  Attributes:
    pairs: number of cases with both angles.
    left_out: number of cases without one of them.
    mad, mad_sd: mean and standard deviation of |d|.
    bias, bias_ci, sd: mean of d, its confidence interval, and the standard deviation of d.
    limits: limits of agreement, bias ± 1.96 sd.
    lower_limit_ci, upper_limit_ci: confidence intervals of the two limits.
    within, num_within, limit: share and number of the cases with |d| <= limit.
    r, r_ci, r2: Pearson's correlation, its confidence interval, and its square.
    icc2_1, icc2_1_ci, icc3_1, icc3_1_ci: intraclass correlations, see `agreement.icc`.
    sem: standard error of measurement.
    mdc95: minimal detectable change.
    smape, smape_cases: as in `Smape`.
    bands: agreement on the band of severity.
    confidence: of the intervals.
    undefined: {attribute: why it is None}.
  """
  pairs: int
  left_out: int
  mad: float | None
  mad_sd: float | None
  bias: float | None
  bias_ci: Interval | None
  sd: float | None
  limits: Interval | None
  lower_limit_ci: Interval | None
  upper_limit_ci: Interval | None
  within: float | None
  num_within: int
  limit: float
  r: float | None
  r_ci: Interval | None
  r2: float | None
  icc2_1: float | None
  icc2_1_ci: Interval | None
  icc3_1: float | None
  icc3_1_ci: Interval | None
  sem: float | None
  mdc95: float | None
  smape: float | None
  smape_cases: int
  bands: BandAgreement
  confidence: float
  undefined: Mapping[str, str]

  def to_json(self) -> dict[str, Any]:
    """The content of JSON files; `from_deg` stands only where it is defined."""
    content = dataclasses.asdict(self)
    for decision in content['bands']['each'].values():
      del decision['from_deg']
    return content


@dataclasses.dataclass(frozen=True)
class CaseAngle:
  """The largest angle of one case and its reference.

  Attributes:
    reference_deg: exact angle of a phantom, else the angle of the true mask.
    angle_deg: measured on the predicted mask.
    naive_deg: largest angle between the lines themselves, if the method has one.
    band: band of severity.
    status: 'ok', 'partial' or 'fail'.
    flags: one sentence for each remark.
  """
  reference_deg: float | None
  angle_deg: float | None
  naive_deg: float | None
  band: str | None
  status: str
  flags: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class CaseResult:
  """One test case at its original size.

  Attributes:
    name: of the case.
    overlap: metrics by class, as `segmentation.case_metrics`; with several classes also the class
      'any_foreground', which is all foreground classes as one.
    laminae: metrics by region of a volume, as `laminae.case_metrics`.
    angle: the measured angle, if the config asks for one.
  """
  name: str
  overlap: ClassTable
  laminae: RegionTable | None = None
  angle: CaseAngle | None = None


@dataclasses.dataclass(frozen=True)
class NetworkScores:
  """Scores over the pixels of the images that the network sees.

  Attributes:
    cross_entropy: mean over the cases.
    accuracy: share of all pixels.
  """
  cross_entropy: float
  accuracy: float


@dataclasses.dataclass(frozen=True)
class LaminaeSummary:
  """Laminae of all test volumes.

  Attributes:
    mean, sd: over the cases in which the metric is defined.
    localizer_dice: {noise in voxels: Dice of a perfect localizer}; empty unless labels are cubes.
  """
  mean: RegionTable
  sd: RegionTable
  localizer_dice: Mapping[str, float] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class AngleSummary:
  """Angles of all test cases.

  Attributes:
    method: of measuring.
    reference: 'phantom truth' or 'true masks'.
    failed: number of cases without an angle.
    agreement: of the measured angles with the reference.
    naive: of the naive angles with the reference, if the method has them.
  """
  method: str
  reference: str
  failed: int
  agreement: Agreement
  naive: Agreement | None


@dataclasses.dataclass(frozen=True)
class TestResult:
  """The test of one checkpoint: the content of test_metrics.json.

  Attributes:
    step: of the checkpoint.
    per_image, pooled: tables of the test set, as `segmentation.summarize`; empty without cases.
    cases: {name: result of the case}.
    auc: {class: area under the ROC curve}.
    at_network_size: scores at the size of the network's images; None without cases.
    laminae: of volumes.
    angles: if the config asks for them.
  """
  __test__ = False  # pytest collects no tests from it

  step: int
  per_image: ClassTable
  pooled: ClassTable
  cases: Mapping[str, CaseResult]
  auc: Mapping[str, float | None]
  at_network_size: NetworkScores | None = None
  laminae: LaminaeSummary | None = None
  angles: AngleSummary | None = None

  def to_json(self) -> dict[str, Any]:
    """The content of test_metrics.json: the results of cases stand by kind."""
    cases = self.cases.values()
    content: dict[str, Any] = {
        'step': self.step, 'per_image': self.per_image, 'pooled': self.pooled,
        'cases': {case.name: case.overlap for case in cases}, 'auc': self.auc}
    if self.at_network_size:
      content['at_network_size'] = dataclasses.asdict(self.at_network_size)
    if self.angles:
      naive = self.angles.naive
      content['angles'] = {
          **dataclasses.asdict(self.angles), 'agreement': self.angles.agreement.to_json(),
          'naive': None if naive is None else naive.to_json(),
          'cases': {case.name: dataclasses.asdict(case.angle) for case in cases if case.angle}}
    if self.laminae:
      content['laminae'] = {
          'cases': {case.name: case.laminae for case in cases if case.laminae},
          'mean': self.laminae.mean, 'sd': self.laminae.sd}
      if self.laminae.localizer_dice:
        content['laminae']['localizer_dice'] = self.laminae.localizer_dice
    return content

  @classmethod
  def from_json(cls, content: Any) -> 'TestResult':
    """Reads the content of test_metrics.json.

    Raises:
      ValueError: it is not the result of a test, or a value has the wrong kind.
    """
    try:
      laminae, angles = content.get('laminae') or {}, content.get('angles') or {}
      scores = content.get('at_network_size')
      return cls(
          step=int(content['step']), per_image=_read_table(content['per_image']),
          pooled=_read_table(content['pooled']), auc=_read_numbers(content['auc']),
          cases={name: _read_case(name, overlap, laminae.get('cases', {}).get(name),
                                  angles.get('cases', {}).get(name))
                 for name, overlap in content['cases'].items()},
          at_network_size=_read_scores(scores) if scores else None,
          laminae=_read_laminae(laminae) if laminae else None,
          angles=_read_angles(angles) if angles else None)
    except (AttributeError, KeyError, TypeError, OverflowError) as error:
      raise ValueError('expected the result of a test with step, tables and cases, got other '
                       f'content ({type(error).__name__}: {error}).') from error


@dataclasses.dataclass(frozen=True)
class RocCurve:
  """A ROC curve for drawing.

  Attributes:
    fpr, tpr: false and true positive rates, from 0 to 1; empty if the curve is undefined.
    auc: area under the curve.
  """
  fpr: tuple[float, ...]
  tpr: tuple[float, ...]
  auc: float | None


@dataclasses.dataclass(frozen=True)
class ShownCase:
  """One view of a test case that the report shows.

  Attributes:
    name: of the case, with the view if it is a volume.
    role: 'best', 'median' or 'worst' by mean Dice of the foreground classes.
    image: gray levels [H,W].
    label: true classes int [H,W].
    prediction: predicted classes int [H,W].
    probs: float [H,W,K].
    dice: mean over the foreground classes.
    angle: the measurement, shown on the view along the spine.
    interlaced: whether a picture with image and mask in alternate rows is added.
  """
  name: str
  role: str
  image: np.ndarray
  label: np.ndarray
  prediction: np.ndarray
  probs: np.ndarray
  dice: float | None
  angle: AngleResult | None
  interlaced: bool


@dataclasses.dataclass(frozen=True)
class Evaluation:
  """What `evaluate` gives to the report.

  Attributes:
    result: the content of test_metrics.json.
    roc: {class: curve}; empty without test cases.
    shown_cases: the best, the median and the worst case.
  """
  result: TestResult
  roc: Mapping[str, RocCurve]
  shown_cases: tuple[ShownCase, ...]


def _read_numbers(values: Mapping[str, Any]) -> dict[str, float | None]:
  """Finite numbers or None by name; raises ValueError for anything else."""
  for name, value in values.items():
    if value is not None and (isinstance(value, bool) or not isinstance(value, (int, float))
                              or not math.isfinite(value)):
      raise ValueError(f'expected a number for {name}, got {value!r}.')
  return dict(values)


def _read_table(table: Mapping[str, Any]) -> ClassTable:
  return {metric: _read_numbers(values) for metric, values in table.items()}


def _read_case(name: str, overlap: Mapping[str, Any], laminae: Mapping[str, Any] | None,
               angle: Mapping[str, Any] | None) -> CaseResult:
  return CaseResult(
      name, _read_table(overlap), None if laminae is None else _read_table(laminae),
      None if angle is None else CaseAngle(**{**angle, 'flags': tuple(angle['flags'])}))


def _read_scores(scores: Mapping[str, Any]) -> NetworkScores:
  return NetworkScores(float(scores['cross_entropy']), float(scores['accuracy']))


def _read_laminae(laminae: Mapping[str, Any]) -> LaminaeSummary:
  localizer = laminae.get('localizer_dice', {})
  return LaminaeSummary(_read_table(laminae['mean']), _read_table(laminae['sd']),
                        {noise: float(dice) for noise, dice in localizer.items()})


def _read_angles(angles: Mapping[str, Any]) -> AngleSummary:
  naive = angles['naive']
  return AngleSummary(
      angles['method'], angles['reference'], angles['failed'],
      _read_agreement(angles['agreement']), _read_agreement(naive) if naive else None)


def _read_agreement(content: Mapping[str, Any]) -> Agreement:
  bands = content['bands']
  intervals = {key: tuple(value) for key, value in content.items() if isinstance(value, list)}
  decisions = {kind: {name: Decision(**counts) for name, counts in bands[kind].items()}
               for kind in ('each', 'at_least')}
  return Agreement(**{**content, **intervals, 'bands': BandAgreement(
      tuple(bands['names']), tuple(bands['limits']), tuple(map(tuple, bands['confusion'])),
      bands['accuracy'], bands['kappa'], **decisions)})
