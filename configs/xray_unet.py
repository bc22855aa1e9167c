"""X-ray U-Net: the spine in posteroanterior X-rays by Keras' Xception-style U-Net (Selvia).

  python -m spinejax.main --config=configs/xray_unet.py:paper

Variants:
  paper    as published: 160x160 by nearest neighbor, gray levels 0 to 255 as they are, no
           augmentation (loss 0.24, pixel accuracy 0.92 on 129 X-rays that are not public)
Ours:
  modern   the same network with the aspect ratio kept, z-scores, flips, rotation and scaling, cross
           entropy + squared Dice, Adam with cosine decay
  modern_unet, modern_fpn   the U-Net of RSN-U-net and a panoptic FPN, trained like `modern`
  quick    `modern` on small phantoms with half the width for two CPU cores (docs/results.md)

Protocol of `paper`: 481 training X-rays (48 of them held out here; the paper does not say how many)
and 129 test X-rays, 15 epochs, batch 3, RMSprop 1e-3, the checkpoint of the lowest validation loss.
The paper says 150x150, which cannot pass through the network; its code has 160x160. Its trimaps
number core, background and border 1, 2, 3 and its network has a fourth output that no label uses;
here background is 0 and there are three outputs.
"""
from spinejax.configs import common

XCEPTION = dict(name='xception_unet', num_classes=3, features=32, levels=3, momentum=0.99)
PAPER = {
    'num_epochs': 15, 'batch_size': 3, 'eval_batch_size': 4, 'log_every': 20, 'eval_every': 145,
    'model': XCEPTION, 'loss': dict(name='cross_entropy'),
    'data.channels': 3, 'data.image_size': (160, 160), 'data.patch_size': (160, 160),
    'data.num_train': 433.0, 'data.num_validation': 48.0, 'data.num_test': 129.0,
    'data.preparation': ('rescale_nearest',), 'augment.flip_horizontal': 0.0,
    'optimizer.name': 'rmsprop', 'optimizer.learning_rate': 1e-3,
    'evaluation.resize': 'mask', 'evaluation.best': 'loss',
}
MODERN = {
    'num_epochs': 60, 'batch_size': 8, 'eval_every': 540,
    'model.momentum': 0.9, 'loss': dict(name='cross_entropy_dice', dice_weight=1.0),
    'data.channels': 1, 'data.image_size': (512, 208), 'data.patch_size': (512, 208),
    'data.preparation': ('fit', 'z_score'),
    'augment.flip_horizontal': 0.5, 'augment.rotation': 10.0, 'augment.translation': 0.05,
    'augment.scale': (0.9, 1.1),
    'optimizer.name': 'adam', 'optimizer.schedule': 'cosine',
    'optimizer.final_learning_rate': 1e-5,
    'evaluation.resize': 'logits', 'evaluation.best': 'dice',
}
VARIANTS: dict[str, dict] = {
    'paper': {},
    'modern': MODERN,
    'modern_unet': {**MODERN, 'model': dict(name='unet', features=32)},
    'modern_fpn': {**MODERN, 'batch_size': 4, 'model': dict(name='fpn', backbone='resnet50_v1c')},
    'quick': {
        **MODERN, 'num_epochs': 0, 'num_steps': 300, 'eval_every': 100, 'log_every': 25,
        'model.features': 16, 'optimizer.learning_rate': 3e-3,
        'data.num_train': 80.0, 'data.num_validation': 10.0, 'data.num_test': 29.0,
        'data.render_size': (400, 150), 'data.image_size': (256, 96), 'data.patch_size': (256, 96),
    },
}
TABLES = {'protocols': common.rows('paper modern')}
sweep = common.three_seeds(TABLES)


def get_config(variant='paper'):
  return common.create_config(common.xrays(), PAPER, *common.select(VARIANTS, variant))
