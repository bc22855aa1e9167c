"""SADANet, its ablations and baselines: dual attention and structure affinity (Xie et al., 2023).

  python -m spinejax.main --config=configs/sadanet.py:ours --workdir=runs/sadanet

Variants are the rows of tables I to III; table IV is `sweep()`:
  ours     criss-cross and global channel attention, structure-affinity auxiliary head
  wide     the same with the 65.19 M head that table III prints
  wo_sca   position instead of criss-cross attention: DANet with the structure-affinity head
  wo_saa   an FCN auxiliary head instead of structure affinity
  danet, ccnet, psanet, fpn, unet (MMSegmentation's U-Net S5-D16)   same loss and protocol
  rsnu     the U-Net of RSN-U-net with total variation beside its cross entropy
  seam     SEAM with its own loss
  quick    small network and images for a laptop CPU: launch/local.sh
           --config=configs/sadanet.py:quick took 1 min 45 s on two cores and ended with a
           per-image Dice of 0.801 (mean of bones) on the 29 test phantoms

Protocol (paper, sections IV.A and IV.B): 80 training and 29 test cases, images resized to 2048x512,
patches 512x256 (here random crops), both flips and rotation; batch 4; cross entropy + 3 squared
Dice; Adam with L2 5e-4, 1e-3 to 5e-6 by cosine, 160 000 steps; the whole image is tested. Ours,
where the paper gives none: rotation of 10 degrees; auxiliary loss weighted 0.4, as MMSegmentation
does. The paper starts from a pretrained residual network: --config.init_from=resnet50_v1c.pth.
"""
from ml_collections import ConfigDict

_NOT_DUAL = {f'model.{field}': None for field in (
    'spatial', 'channel', 'affinity', 'wide', 'branch_losses')}
_NOT_DILATED = {**_NOT_DUAL, 'model.query_features': None, 'model.auxiliary_features': None}
_UNET = {**_NOT_DILATED, 'model.features': 64, **{f'model.{field}': None for field in (
    'backbone', 'backbone_width', 'output_stride', 'head_features', 'dropout')}}
_PYRAMID = {**_NOT_DILATED, 'model.output_stride': 32, 'model.neck_features': 256,
            'model.head_features': 128}
_NOT_DICE = {'loss.reduction': None, 'loss.divide_by_classes': None}

VARIANTS = {
    'ours': {},
    'wide': {'model.wide': True, 'model.branch_losses': True},
    'wo_sca': {'model.spatial': 'position', 'model.channel': 'danet',
               'model.branch_losses': True},
    'wo_saa': {'model.affinity': False},
    'danet': {**_NOT_DUAL, 'model.name': 'danet'},
    'ccnet': {**_NOT_DUAL, 'model.name': 'ccnet'},
    'psanet': {**_NOT_DUAL, 'model.name': 'psanet', 'model.query_features': None},
    'fpn': {**_PYRAMID, 'model.name': 'fpn'},
    'unet': {**_UNET, 'model.name': 'unet_s5d16'},
    'rsnu': {**_UNET, 'model.name': 'unet', **_NOT_DICE, 'loss.name': 'cross_entropy_tv',
             'loss.lam': 0.4},
    'seam': {**_PYRAMID, 'model.name': 'seam', **_NOT_DICE, 'loss.name': 'seam', 'loss.lam': 0.4},
    'quick': {
        'num_steps': 400, 'batch_size': 4, 'eval_every': 200, 'log_every': 50,
        'model.backbone_width': 16, 'model.head_features': 64, 'model.query_features': 8,
        'model.auxiliary_features': 32,
        'data.num_validation': 8.0, 'data.render_size': (768, 192), 'data.image_size': (512, 128),
        'data.patch_size': (128, 128),
        'optimizer.learning_rate': 2e-3, 'optimizer.final_learning_rate': 2e-5,
        'optimizer.warmup_steps': 20,
    },
}


def get_config(variant: str = 'ours') -> ConfigDict:
  """Returns the locked config of one variant."""
  config = ConfigDict()
  config.seed = 0
  config.num_steps = 160_000      # 0: num_epochs counts
  config.num_epochs = 0
  config.batch_size = 4
  config.eval_batch_size = 1
  config.log_every = 100          # steps
  config.eval_every = 4000        # steps; each evaluation is followed by a checkpoint
  config.max_skipped_steps = 20   # non-finite steps in a row before the run stops
  config.ema_decay = 0.0          # 0: no moving average of the variables
  config.data_parallel = 'mesh'   # or 'pmap'
  config.init_from = ''           # PyTorch weights to start from: .safetensors, .npz or .pth
  config.init_parts = ()          # what to take of them, such as ('backbone',); (): all

  config.model = dict(
      name='sadanet',
      num_classes=4,              # background counts
      backbone='resnet50_v1c',
      backbone_width=64,
      output_stride=8,
      head_features=512,
      query_features=64,
      spatial='criss_cross',      # or 'position'
      channel='global',           # eq. 3, or 'danet' for its channel attention
      affinity=True,              # False: FCN auxiliary head
      auxiliary_features=256,
      neck_features=None,         # of the pyramid networks
      features=None,              # of the U-Nets
      wide=False,
      branch_losses=False,        # True: a classifier and a loss on each branch too
      dropout=0.1,
      dtype='float32',            # 'bfloat16' on accelerators
  )
  config.loss = dict(
      name='cross_entropy_dice',
      lam=3.0,
      reduction='class',          # or 'global', eq. 6 as printed
      divide_by_classes=False,    # True: eq. 5 as printed
      auxiliary_weight=0.4,
      branch_weight=1.0,
  )
  config.data = dict(
      name='vpi_phantom',         # or 'folder', 'built' with a directory
      directory='',
      classes=('background', 'rib', 'thoracic process', 'lump'),
      label_map=(),               # class of each label value; () keeps the values
      palette='',                 # colors of the classes in RGB masks, '000000,ff0000,...'
      channels=1,
      image_size=(2048, 512),
      patch_size=(512, 256),
      patch_stride=(0, 0),        # (0, 0): random crops
      num_train=80.0,             # patients; 0: all that are left
      num_validation=0.0,         # patients, or a fraction below 1
      num_test=29.0,              # patients, or a fraction below 1
      split_file='',
      split_seed=0,
      difficulty=1.0,             # of the phantom
      render_size=(2560, 640),    # of the phantom, its original size
      mean=(75.99,),              # gray levels of the published training set; or per channel
      std=(84.15,),               # 0: both are computed from the training images
      preparation=('rescale',),   # or 'fit' (aspect ratio kept), 'rescale_nearest'; 'z_score'
      top_layer='interface',      # of volumes; or mm from the skin
      column_width=60.0,          # of volumes, mm about the spinous column
      labels='cubes',             # of volumes, about their landmarks, or 'mask'
      border=0.02,                # of trimaps made of vertebrae, fraction of the image's width
      axes='',                    # of volumes, such as 'RAS'; '': as their files say
      cache='auto',               # 'device', 'stream'
  )
  config.augment = dict(
      flip_horizontal=0.5,
      flip_vertical=0.5,
      rotation=10.0,              # degrees, either way
      translation=0.0,            # fraction of the patch
      scale=(1.0, 1.0),
  )
  config.optimizer = dict(
      name='adam',
      learning_rate=1e-3,
      schedule='cosine',
      final_learning_rate=5e-6,
      warmup_steps=0,
      weight_decay=5e-4,
      gradient_clip=0.0,
  )
  config.evaluation = dict(
      resize='logits',            # to the original size: 'logits' bilinear, or 'mask' nearest
      style_transfer=False,       # of a wave_ct network, before it segments
      best='dice',                # of validation: mean Dice of the bones, or 'loss'
      interlaced=False,           # True: pictures of image and mask in alternate rows too
  )
  config.angle = dict(
      method='uca',               # 'uca', 'center_of_lamina', 'centerline_cobb'; '': none
      spacing=(),                 # mm per pixel (y, x) where files do not say; (1.0, 1.0): square
      min_deg=5.0,                # degrees; smaller swings of the spine are no curves
      bands=(10.0, 25.0, 40.0),   # degrees; limits of none, mild, moderate and severe
      calibration=(),             # (slope, intercept, source) of your own; shown beside the angle
  )
  config.lock()
  config.update_from_flattened_dict(VARIANTS[variant])
  return config


def sweep():
  """Table IV: seven weights of the Dice loss."""
  for lam in (0.0, 1.0, 2.0, 2.5, 3.0, 4.0, 5.0):
    yield {'variant': 'ours', 'loss.lam': lam}
