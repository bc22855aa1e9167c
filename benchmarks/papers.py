"""Rows of the papers' tables, what the papers print for them, and what they claim.

Rows are variants of the configs. The Dice of SEAM and SADANet is the mean of the three bones in
percent. Table I of SADANet prints the mean of four classes for some rows; here it is the mean of
its three bones for all rows but RSNU, whose printed 80.86 is that of SEAM's table.
"""
import dataclasses
from collections.abc import Mapping
from typing import Any


@dataclasses.dataclass(frozen=True)
class Row:
  """A system of a table: the variant `small` of a config, with fields changed."""
  config: str  # such as 'seam:fpn'
  title: str
  printed: str = '–'
  changed: Mapping[str, Any] = dataclasses.field(default_factory=dict)

  @property
  def key(self) -> str:
    """How claims name the row, such as 'seam:fpn' and 'sadanet:ours loss.dice_weight=2.0'."""
    return ' '.join([self.config, *(f'{name}={value}' for name, value in self.changed.items())])


@dataclasses.dataclass(frozen=True)
class Claim:
  """A system is better in a metric than each of others."""
  sentence: str
  better: str  # key of a row
  than: tuple[str, ...]
  printed: str = ''  # what the paper prints
  metric: str = 'dice'  # of `small_protocol.METRICS`


@dataclasses.dataclass(frozen=True)
class Table:
  """A table of a paper. The other rows are compared with the proposed system, the first row."""
  name: str
  classes: Mapping[str, str]  # columns of the Dice of classes, {class: title}
  metrics: tuple[str, ...]  # columns with differences
  printed: str  # title of the column with what the paper prints
  rows: tuple[Row, ...]
  claims: tuple[Claim, ...] = ()


BONES = {'rib': 'rib', 'thoracic process': 'process', 'lump': 'lump'}
UNET_DICE = {'rib': 0.7737, 'thoracic process': 0.7470, 'lump': 0.8221}  # of SEAM and SADANet
IMAGES = ('dice', 'angle')

SEAM = Table('SEAM, table 1', BONES, IMAGES, 'paper, %', (
    Row('seam:ours', 'SEAM', '81.85'),
    Row('seam:printed', 'SEAM, attention as printed'),
    Row('seam:mean', 'SEAM, mean over positions'),
    Row('seam:wo_al', 'without attention', '81.14'),
    Row('seam:wo_ss', 'without center regression', '81.29'),
    Row('seam:bone_unit', 'centers in units of a bone'),
    Row('seam:pixel_unit', 'centers in pixels'),
    Row('seam:class_center', 'centers of classes'),
    Row('seam:fpn', 'FPN', '80.04'),
    Row('seam:unet', 'U-Net S5-D16', '78.09'),
    Row('seam:ppmu', 'PPMU', '79.78'),
    Row('seam:rsnu', 'RSNU', '80.86'),
    Row('seam:wave_ct', 'WaveCT', '80.33'),
    Row('seam:danet', 'DANet', '79.05'),
    Row('seam:emanet', 'EMANet', '80.48'),
    Row('seam:nonlocal', 'non-local', '80.02'),
), (
    Claim('The attention raises the Dice', 'seam:ours', ('seam:wo_al',), '0.0071'),
    Claim('The attention as printed raises the Dice', 'seam:printed', ('seam:wo_al',)),
    Claim('The center regression raises the Dice', 'seam:ours', ('seam:wo_ss',), '0.0056'),
    Claim('The structure losses alone raise the Dice of an FPN', 'seam:wo_al', ('seam:fpn',),
          '0.0110'),
    Claim('SEAM is better than its FPN', 'seam:ours', ('seam:fpn',), '0.0181'),
    Claim('SEAM is better than U-Net S5-D16 and PPMU', 'seam:ours',
          ('seam:unet', 'seam:ppmu'), '0.0207'),
    Claim('SEAM is better than RSNU and WaveCT', 'seam:ours',
          ('seam:rsnu', 'seam:wave_ct'), '0.0099'),
    Claim('SEAM is better than DANet, EMANet and non-local', 'seam:ours',
          ('seam:danet', 'seam:emanet', 'seam:nonlocal'), '0.0137'),
))

SADANET = Table('SADANet, table I', BONES, IMAGES, 'paper, %', (
    Row('sadanet:ours', 'SADANet', '81.14'),
    Row('sadanet:unet', 'U-Net S5-D16', '78.09'),
    Row('sadanet:fpn', 'FPN', '80.11'),
    Row('sadanet:rsnu', 'RSNU', '80.86'),
    Row('sadanet:seam', 'SEAM', '79.52'),
    Row('sadanet:psanet', 'PSANet', '80.75'),
    Row('sadanet:ccnet', 'CCNet', '80.33'),
    Row('sadanet:danet', 'DANet', '80.45'),
), (
    Claim('SADANet is better than U-Net and FPN', 'sadanet:ours', ('sadanet:unet', 'sadanet:fpn'),
          '0.0103'),
    Claim('SADANet is better than RSNU and SEAM', 'sadanet:ours',
          ('sadanet:rsnu', 'sadanet:seam'), '0.0028'),
    Claim('SADANet is better than PSANet, CCNet and DANet', 'sadanet:ours',
          ('sadanet:psanet', 'sadanet:ccnet', 'sadanet:danet'), '0.0039'),
))

SADANET_GRID = Table('SADANet, table II', BONES, IMAGES, 'paper, %', (
    Row('sadanet:ours', 'criss-cross, affinity', '81.14'),
    Row('sadanet:wo_sca', 'position, affinity'),
    Row('sadanet:wo_saa', 'criss-cross, FCN head'),
    Row('sadanet:wo_both', 'position, FCN head'),
    Row('sadanet:printed_channel', 'ours, channel attention as printed'),
    Row('sadanet:printed_affinity', 'ours, affinity as printed'),
    Row('sadanet:printed', 'ours, both as printed'),
    Row('sadanet:danet', 'DANet', '80.45'),
    Row('sadanet:danet_affinity', '“w/o SCA”: DANet, affinity', '80.80'),
    Row('sadanet:danet_criss_cross', '“w/o SAA”: DANet, criss-cross', '80.64'),
), (
    Claim('Criss-cross attention raises the Dice', 'sadanet:ours', ('sadanet:wo_sca',)),
    Claim('The structure affinity raises the Dice', 'sadanet:ours', ('sadanet:wo_saa',)),
    Claim('Criss-cross attention raises the Dice without affinity', 'sadanet:wo_saa',
          ('sadanet:wo_both',)),
    Claim('The structure affinity raises the Dice with position attention', 'sadanet:wo_sca',
          ('sadanet:wo_both',)),
    Claim('SADANet is better than “w/o SCA”', 'sadanet:ours', ('sadanet:danet_affinity',),
          '0.0034'),
    Claim('SADANet is better than “w/o SAA”', 'sadanet:ours', ('sadanet:danet_criss_cross',),
          '0.0050'),
    Claim('Criss-cross attention raises the Dice of DANet', 'sadanet:danet_criss_cross',
          ('sadanet:danet',), '0.0019'),
    Claim('The structure affinity raises the Dice of DANet', 'sadanet:danet_affinity',
          ('sadanet:danet',), '0.0035'),
))

WEIGHT = 'loss.dice_weight'
SADANET_WEIGHTS = Table('SADANet, table IV', BONES, IMAGES, 'paper, %', (
    Row('sadanet:ours', 'weight 3', '81.14'),
    *(Row('sadanet:ours', f'weight {weight:g}', printed, {WEIGHT: weight})
      for weight, printed in ((0.0, '80.97'), (1.0, '80.94'), (2.0, '81.06'), (2.5, '80.92'),
                              (4.0, '80.87'), (5.0, '80.68'))),
), (
    Claim('A weight of 3 of the Dice loss is the best', 'sadanet:ours',
          tuple(f'sadanet:ours {WEIGHT}={weight}' for weight in (0.0, 1.0, 2.0, 2.5, 4.0, 5.0)),
          '0.0008'),
))

RSN_UNET = Table('RSN-U-net, table I', {}, ('dice', 'auc', 'angle'), 'paper', (
    Row('rsn_unet:rsn', 'RSN-U-net', 'Dice 0.784, AUC 0.98'),
    Row('rsn_unet:unet', 'U-Net', 'Dice 0.761, AUC 0.97'),
), (
    Claim('Total variation raises the Dice', 'rsn_unet:rsn', ('rsn_unet:unet',), '0.0230'),
    Claim('Total variation raises the AUC', 'rsn_unet:rsn', ('rsn_unet:unet',), '0.01', 'auc'),
))

C_UNET = Table('C-U-net, table I', {}, ('dice', 'distance', 'missed', 'false', 'angle'), 'paper', (
    Row('c_unet:centroid', 'centroid loss'),
    Row('c_unet:dice', 'Dice loss'),
    Row('c_unet:wbce', 'weighted cross entropy'),
    Row('c_unet:centroid_published,printed', 'centroid loss, training as printed',
        'D 0.412, d₃D 118, Δ 3.4'),
    Row('c_unet:dice,printed', 'Dice loss, training as printed', 'D 0.407, d₃D 151, Δ 4.2'),
    Row('c_unet:wbce,printed', 'weighted cross entropy, training as printed',
        'D 0.280, d₃D 247, Δ 9.3'),
), (
    Claim('The centroid loss misses fewer laminae than the Dice loss', 'c_unet:centroid',
          ('c_unet:dice',), '3 and 5', 'missed'),
    Claim('The centroid loss misses fewer laminae than weighted cross entropy', 'c_unet:centroid',
          ('c_unet:wbce',), '', 'missed'),
    Claim('The centroid loss brings centroids closer', 'c_unet:centroid',
          ('c_unet:dice', 'c_unet:wbce'), '33 voxels', 'distance'),
    Claim('As printed, the centroid loss misses fewer laminae than the Dice loss',
          'c_unet:centroid_published,printed', ('c_unet:dice,printed',), '3 and 5', 'missed'),
))

TABLES = {'seam': SEAM, 'sadanet': SADANET, 'sadanet_grid': SADANET_GRID,
          'sadanet_weights': SADANET_WEIGHTS, 'rsn_unet': RSN_UNET, 'c_unet': C_UNET}
ROWS = {row.key: row for table in TABLES.values() for row in table.rows}
