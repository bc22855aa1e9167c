"""SADANet, its ablations and baselines: dual attention, structure affinity (Xie et al., 2023).

  python -m spinejax.main --config=configs/sadanet.py:ours

Variants, rows of TABLES:
  ours     criss-cross and global channel attention, structure-affinity auxiliary head
  wide     the same with the head of 65.19 M parameters that table III prints
  wo_sca, wo_saa, wo_both   position instead of criss-cross attention; an FCN auxiliary head; both
  danet_affinity, danet_criss_cross   table II as its text reads: DANet with one change each
  printed  channel attention and affinity as printed; printed_channel, printed_affinity: one of them
  danet, ccnet, psanet, fpn, unet   same loss and protocol; unet is U-Net S5-D16
  rsnu, seam      U-Net of RSN-U-net with total variation; SEAM; each with its own loss
  small    after a row, as `fpn,small`: the small protocol (docs/small_protocol.md)
  quick    ours: a small network on small images for two CPU cores (docs/results.md)
Protocol (sections IV.A, IV.B): 2048x512 images, 512x256 patches (ours: random crops), both flips
and rotation (ours: 10 degrees), batch 4, cross entropy + 3 squared Dice, auxiliary loss 0.4 (ours,
as in MMSegmentation), Adam with L2 5e-4, 1e-3 to 5e-6 by cosine, 160,000 steps; the mask is resized
to the original size, not the logits. The backbone is a pretrained ResNet:
--config.init_from=resnet50_v1c.pth, of a whole network with --config.init_parts="('backbone',)".
"""
from spinejax.configs import common

RESNET = dict(num_classes=4, backbone='resnet50_v1c', backbone_width=64, dropout=0.1)
DILATED = dict(**RESNET, output_stride=8, head_features=512, auxiliary_features=256)
PYRAMID = dict(**RESNET, output_stride=32, neck_features=256, head_features=128)
SADANET = dict(name='sadanet', **DILATED, query_features=64,
               spatial='criss_cross',     # or 'position'
               channel='cosine',          # or 'printed', eq. 3; or 'danet', that of DANet
               affinity=True,             # False: an FCN auxiliary head
               attention_form='class_mean',  # of the affinity; or 'mean', 'printed'
               wide=False,
               branch_losses=False)       # True: a classifier and a loss on each branch
PLAIN = dict(name='cross_entropy_dice', dice_weight=3.0,
             reduction='class',           # or 'global', eq. 6 as printed
             divide_by_classes=False)     # True: eq. 5 as printed
AUXILIARY = dict(**PLAIN, auxiliary_weight=0.4)
LOSS = dict(**AUXILIARY, branch_weight=1.0)
SEAM_LOSS = dict(name='seam', structure_weight=0.4, center_weight=0.5, center='component')
DANET = {'model.channel': 'danet', 'model.branch_losses': True}

PAPER = {
    'num_steps': 160_000, 'eval_batch_size': 1, 'log_every': 100, 'eval_every': 4000,
    'model': SADANET, 'loss': LOSS,
    'data.image_size': (2048, 512), 'data.patch_size': (512, 256),
    'augment.flip_vertical': 0.5, 'augment.rotation': 10.0,
    'optimizer.schedule': 'cosine', 'optimizer.weight_decay': 5e-4,
    'optimizer.learning_rate': 1e-3, 'optimizer.final_learning_rate': 5e-6,
    'evaluation.resize': 'mask',  # or 'logits'
}
VARIANTS: dict[str, dict] = {
    'ours': {},
    'wide': {'model.wide': True, 'model.branch_losses': True},
    'printed': {'model.channel': 'printed', 'model.attention_form': 'printed'},
    'printed_channel': {'model.channel': 'printed'},
    'printed_affinity': {'model.attention_form': 'printed'},
    'wo_sca': {'model.spatial': 'position'},
    'wo_saa': {'model.affinity': False},
    'wo_both': {'model.spatial': 'position', 'model.affinity': False},
    'danet_affinity': {'model.spatial': 'position', **DANET},
    'danet_criss_cross': {'model.affinity': False, **DANET},
    'danet': {'model': dict(name='danet', **DILATED, query_features=64)},
    'ccnet': {'model': dict(name='ccnet', **DILATED, query_features=64), 'loss': AUXILIARY},
    'psanet': {'model': dict(name='psanet', **DILATED), 'loss': AUXILIARY},
    'fpn': {'model': dict(name='fpn', **PYRAMID), 'loss': PLAIN},
    'unet': {'model': dict(name='unet_s5d16', features=64), 'loss': AUXILIARY},
    'rsnu': common.RSNU,
    'seam': {'model': dict(name='seam', **PYRAMID), 'loss': SEAM_LOSS},
    'small': common.SMALL_ULTRASOUND,
    'quick': {
        **common.QUICK_ULTRASOUND, 'num_steps': 400, 'eval_every': 200, 'eval_batch_size': 1,
        'model.backbone_width': 16, 'model.head_features': 64, 'model.query_features': 8,
        'model.auxiliary_features': 32, 'data.patch_size': (128, 128), 'optimizer.warmup_steps': 20,
        'optimizer.learning_rate': 2e-3, 'optimizer.final_learning_rate': 2e-5,
        'evaluation.resize': 'logits',
    },
}
TABLES = {
    'I': common.rows('unet fpn rsnu seam psanet ccnet danet printed ours'),
    'II': common.rows('wo_both wo_sca wo_saa ours danet danet_affinity danet_criss_cross'),
    'III': common.rows('danet danet_criss_cross wide'),
    'IV': [{'variant': 'ours', 'loss.dice_weight': x} for x in (0.0, 1.0, 2.0, 2.5, 3.0, 4.0, 5.0)],
    'forms': common.rows('ours printed printed_channel printed_affinity'),
}
sweep = common.three_seeds(TABLES)


def get_config(variant='ours'):
  return common.create_config(common.ultrasound(), PAPER, *common.select(VARIANTS, variant))
