"""C-U-net and its rivals: laminae in 3-D ultrasound volumes by three losses (Wong et al., 2021).

  python -m spinejax.main --config=configs/c_unet.py:centroid

Variants, rows of table I, one 3-D U-Net each:
  dice      Dice loss (D-U-net)
  wbce      weighted binary cross entropy (B-U-net)
  centroid  centroid loss with a straight-through surrogate and a distance floor (C-U-net as its
            text means it)
  centroid_published  the centroid loss as printed: its gradient is Dice's times a constant
  printed   after a row, as `dice,printed`: training as the paper says it, without the two aids
            below; table I is dice,printed, wbce,printed and centroid_published,printed
  small     after a row, as `dice,small` or `dice,printed,small`: volumes of half the size and an
            eighth of the width for one CPU core (docs/small_protocol.md)
Ours: quick is the network of `small` after 300 steps (docs/results.md).

Protocol (sections II, III): 50 training, 10 validation and 10 test volumes, without their top layer
and cropped to the spinous column, of 384x96x48 voxels, mean 0 and deviation 1; left-right flip;
batch 1; Adam 1e-4; 200 epochs; the checkpoint of the lowest validation loss. Laminae are cubes of
3x3x3 voxels; a perfect localizer has a Dice of about 0.62 against the phantoms', which are placed
with half a voxel of noise before they are scaled. The paper does not print the weight of positive
voxels (ours: 100). Our aids: a lamina has the probability 0.01 before training, and gradients are
clipped to norm 1, since the product of the centroid loss falls from hundreds to one tenth.
"""
from spinejax.configs import common

PAPER = {
    'num_epochs': 200, 'batch_size': 1, 'eval_batch_size': 1, 'log_every': 20, 'eval_every': 50,
    'model': dict(name='unet', num_classes=1, features=64, levels=3, upsample='nearest',
                  negative_slope=0.01, dropout=0.125, prior=0.01),
    'loss': dict(name='centroid',
                 gradient='straight_through',  # or 'published'
                 distance_floor=1.0,           # voxels; 0 as printed
                 connectivity='face'),         # or 'full'
    'data.num_train': 50.0, 'data.num_validation': 10.0, 'data.num_test': 10.0,
    'data.preparation': ('crop_top_layer', 'crop_to_column', 'rescale', 'z_score'),
    'optimizer.learning_rate': 1e-4, 'optimizer.gradient_clip': 1.0,
}
SMALL = {
    'num_epochs': 0, 'num_steps': 800, 'eval_every': 100, 'log_every': 25, 'model.features': 8,
    'data.num_test': 20.0,
    'data.render_size': (192, 48, 24), 'data.image_size': (192, 48, 24),
    'data.patch_size': (192, 48, 24),
    'optimizer.learning_rate': 3e-3, 'optimizer.schedule': 'cosine',
    'optimizer.final_learning_rate': 3e-5,
}
VARIANTS: dict[str, dict] = {
    'centroid': {},
    'centroid_published': {'loss.gradient': 'published', 'loss.distance_floor': 0.0},
    'dice': {'loss': dict(name='dice')},
    'wbce': {'loss': dict(name='weighted_bce', positive_weight=100.0)},
    'printed': {'model.prior': 0.5, 'optimizer.gradient_clip': 0.0},
    'small': SMALL,
    'quick': {
        **SMALL, 'num_steps': 300, 'data.num_train': 16.0, 'data.num_validation': 4.0,
        'data.num_test': 8.0, 'optimizer.final_learning_rate': 1e-4,
    },
}
TABLES = {
    'I': common.rows('dice wbce centroid dice,printed wbce,printed centroid_published,printed'),
}
sweep = common.three_seeds(TABLES)


def get_config(variant='centroid'):
  return common.create_config(common.volumes(), PAPER, *common.select(VARIANTS, variant))
