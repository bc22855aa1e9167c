"""RSN-U-net and its U-Net: total variation against speckle and occlusion (Huang et al., 2020).

  python -m spinejax.main --config=configs/rsn_unet.py:rsn

Variants, rows of table I:
  rsn     binary cross entropy + 0.4 total variation
  unet    binary cross entropy alone
Ours: quick is a small network on small images for two CPU cores (docs/results.md).

Protocol (sections III.A, III.B): bone against background, images of 1000 rows and 250 columns,
random crop, horizontal flip and affine transformation, 50 epochs of Adam 0.01 with L2 1e-6; the
mask, thresholded at 0.5, is resized to the original size. The paper does not give the patch, the
batch and the affine transformation; ours are 512x250, 4, and 10 degrees, 5 % and 0.9 to 1.1.
"""
from spinejax.configs import common

PAPER = {
    'num_epochs': 50, 'batch_size': 4, 'log_every': 20, 'eval_every': 200,
    'model': dict(name='unet', num_classes=1, features=64),
    'loss': dict(name='bce_tv', tv_weight=0.4,
                 normalization='terms'),  # or 'paper', whose two normalizers are swapped
    'data.classes': ('background', 'bone'), 'data.label_map': (0, 1, 1, 1),
    'data.image_size': (1000, 250), 'data.patch_size': (512, 250),
    'augment.rotation': 10.0, 'augment.translation': 0.05, 'augment.scale': (0.9, 1.1),
    'optimizer.learning_rate': 0.01, 'optimizer.weight_decay': 1e-6,
    'evaluation.resize': 'mask',
}
VARIANTS: dict[str, dict] = {
    'rsn': {},
    'unet': {'loss.tv_weight': 0.0},
    'small': common.SMALL_ULTRASOUND,
    'quick': {
        **common.QUICK_ULTRASOUND, 'num_epochs': 0, 'num_steps': 300, 'eval_every': 150,
        'model.features': 12, 'data.patch_size': (256, 128),
        'optimizer.schedule': 'cosine', 'optimizer.final_learning_rate': 1e-4,
    },
}
TABLES = {'I': common.rows('unet rsn')}
sweep = common.three_seeds(TABLES)


def get_config(variant='rsn'):
  return common.create_config(common.ultrasound(), PAPER, *common.select(VARIANTS, variant))
