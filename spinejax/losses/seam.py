"""SEAM's objective: cross entropy plus supervision of the attention's key map."""
from spinejax.losses.center import Center, center_regression, class_supervision
from spinejax.losses.objective import Arrays, Objective, class_cross_entropy


def seam_loss(outputs: Arrays, batch: Arrays, *, structure_weight: float = 0.4,
              center_weight: float = 0.5, center: Center = 'component') -> Objective:
  """`CE + lambda (class supervision + beta center regression)`: SEAM (Zhao et al., 2021, eq. 9).

  Args:
    outputs: `logits` and `key_logits`, float [N, h, w, K].
    batch: `label`, and `cells` where `losses.needs_cells` says so, see `center_regression`.
    structure_weight: lambda.
    center_weight: beta. If it or lambda is 0, the center regression is not computed.
    center: 'component', or 'class' for the ablation with one center per class.
  """
  key_logits, label = outputs['key_logits'], batch['label']
  parts = {
      'cross_entropy': class_cross_entropy(outputs, batch, 'seam'),
      'class_supervision': class_supervision(key_logits, label),
  }
  structure = parts['class_supervision']
  if structure_weight and center_weight:
    cells = batch['cells'] if center == 'component' else None
    parts['center_regression'] = center_regression(key_logits, label, cells, center=center)
    structure += center_weight * parts['center_regression']
  return parts['cross_entropy'] + structure_weight * structure, parts
