"""SEAM and the rows of its table: structure-enhanced attention on an FPN (Zhao et al., 2021).

  python -m spinejax.main --config=configs/seam.py:ours

Variants, rows of table 1:
  ours          attention, class supervision and center regression of the key map
  wo_al, wo_ss  without attention (the structure losses stay); without center regression
  fpn, unet     panoptic FPN; U-Net S5-D16 of MMSegmentation
  ppmu          U-Net with pyramid pooling in its deep skips, after PPMU's abstract
  rsnu          U-Net of RSN-U-net, cross entropy and total variation
  wave_ct       FPN behind a style transfer in a wavelet autoencoder, after WaveCT
  danet, emanet, nonlocal   attention on a ResNet at stride 8
  printed, mean   the attention as printed, which does not learn at this size; divided by the area
  bone_unit, pixel_unit, class_center, resnet101   ours: one field of `ours` changed
  small         after a row, as `fpn,small`: the small protocol (docs/small_protocol.md)
  quick         ours: a small network on small images for two CPU cores (docs/results.md)

Protocol (sections 3.1, 3.2): 1024x256 images, 512x256 patches every 128 rows, flips and rotation,
batch 12, Adam 1e-4 to 5e-6 by cosine, lambda 0.4, beta 0.5; the mask is resized to the original
size, not the logits. The paper trains for 7 h on a GTX 2080 Ti and gives no number of steps: 80,000
is our choice. Its FPN has the settings of panoptic FPN, which starts from a ResNet of ImageNet:
--config.init_from=resnet50_v1c.pth, of a whole network with --config.init_parts="('backbone',)".
"""
from spinejax.configs import common

RESNET = dict(num_classes=4, backbone='resnet50_v1c', backbone_width=64, dropout=0.1)
PYRAMID = dict(**RESNET, output_stride=32, neck_features=256, head_features=128)
SEAM = dict(name='seam', **PYRAMID, attention=True, query_features=32,
            attention_form='class_mean')  # or 'mean', 'printed'
LOSS = dict(name='seam', structure_weight=0.4, center_weight=0.5, center='component',
            center_unit='image')  # as printed; or 'pixel', 'bone'
CROSS_ENTROPY = dict(name='cross_entropy')
AUXILIARY = dict(name='cross_entropy', auxiliary_weight=0.4)  # as in MMSegmentation
DILATED = dict(**RESNET, output_stride=8, head_features=512)

PAPER = {
    'num_steps': 80_000, 'batch_size': 12, 'log_every': 100, 'eval_every': 2000,
    'model': SEAM, 'loss': LOSS,
    'data.image_size': (1024, 256), 'data.patch_size': (512, 256), 'data.patch_stride': (128, 256),
    'augment.flip_vertical': 0.5, 'augment.rotation': 10.0,
    'optimizer.schedule': 'cosine', 'optimizer.learning_rate': 1e-4,
    'optimizer.final_learning_rate': 5e-6,
    'evaluation.resize': 'mask',  # or 'logits'
}
VARIANTS: dict[str, dict] = {
    'ours': {},
    'wo_al': {'model.attention': False},
    'wo_ss': {'loss.center_weight': 0.0},
    'fpn': {'model': dict(name='fpn', **PYRAMID), 'loss': CROSS_ENTROPY},
    'unet': {'model': dict(name='unet_s5d16', features=64), 'loss': AUXILIARY},
    'ppmu': {'model': dict(name='ppmu', features=64), 'loss': CROSS_ENTROPY},
    'rsnu': common.RSNU,
    'wave_ct': {'model': dict(name='wave_ct', **PYRAMID, style_transfer=True),
                'loss': dict(name='wave_ct', reconstruction_weight=1.0)},
    'danet': {'model': dict(name='danet', **DILATED), 'loss': dict(**AUXILIARY, branch_weight=1.0)},
    'emanet': {'model': dict(name='emanet', **DILATED | {'head_features': 256}), 'loss': AUXILIARY},
    'nonlocal': {'model': dict(name='nonlocal', **DILATED), 'loss': AUXILIARY},
    'printed': {'model.attention_form': 'printed'},
    'mean': {'model.attention_form': 'mean'},
    'bone_unit': {'loss.center_unit': 'bone'},
    'pixel_unit': {'loss.center_unit': 'pixel'},
    'class_center': {'loss.center': 'class'},
    'resnet101': {'model.backbone': 'resnet101_v1c'},
    'small': common.SMALL_ULTRASOUND,
    'quick': {
        **common.QUICK_ULTRASOUND, 'num_steps': 1900, 'eval_every': 475, 'ema_decay': 0.99,
        'model.backbone_width': 16, 'model.neck_features': 48, 'model.head_features': 32,
        'augment.flip_vertical': 0.0,
        'data.patch_size': (256, 128), 'data.patch_stride': (64, 128), 'optimizer.warmup_steps': 20,
        'optimizer.learning_rate': 2e-3, 'optimizer.final_learning_rate': 2e-5,
        'evaluation.resize': 'logits',
    },
}
TABLES = {
    '1': common.rows('fpn unet ppmu rsnu wave_ct danet emanet nonlocal wo_al wo_ss printed ours'),
    'forms': common.rows('ours printed mean wo_ss bone_unit pixel_unit class_center'),
}
sweep = common.three_seeds(TABLES)


def get_config(variant='ours'):
  return common.create_config(common.ultrasound(), PAPER, *common.select(VARIANTS, variant))
