"""SEAM and its ablations: structure-enhanced attention on a panoptic FPN (Zhao et al., 2021).

  python -m spinejax.main --config=configs/seam.py:ours --workdir=runs/seam_ours

Variants are the rows of table 1, all with the same protocol:
  ours          attention, class supervision and center regression of the key map
  wo_al         without attention; the structure supervision acts on the FPN features
  wo_ss         without center regression (beta = 0); the class supervision stays
  fpn           vanilla panoptic FPN
  unet          U-Net S5-D16 of MMSegmentation
  ppmu          U-Net with pyramid pooling in its deep skips, after PPMU's abstract
  rsnu          the U-Net of RSN-U-net with total variation beside its cross entropy
  wave_ct       FPN behind a style transfer in a wavelet autoencoder, after WaveCT
  danet, emanet, nonlocal   attention on a ResNet at stride 8
and our own:
  mean_attention  the attention logits averaged over positions instead of summed
  class_center  one center per class instead of one per component
  resnet101     the same with a ResNet-101 backbone
  quick         small network and images for a laptop CPU: launch/local.sh
                --config=configs/seam.py:quick took 2 min 34 s on two cores and ended with a
                per-image Dice of 0.757 (mean of bones) on the 29 test phantoms

Protocol (paper, sections 3.1 and 3.2): 80 training and 29 test cases, images resized to 1024x256,
patches 512x256, here every 128 rows; flips and rotation; batch 12; Adam, 1e-4 to 5e-6 by cosine;
lambda 0.4, beta 0.5; the whole image is tested and its logits resized to the original size. The
paper gives 7 h of training on a GTX 2080 Ti and no number of steps: 80 000 is our choice.
"""
from ml_collections import ConfigDict

_PLAIN = {
    'loss.name': 'cross_entropy', 'loss.lam': None, 'loss.beta': None, 'loss.center': None,
    **{f'model.{field}': None for field in ('attention', 'attention_scale', 'query_features')}}
_DILATED = {**_PLAIN, 'model.output_stride': 8, 'model.neck_features': None,
            'model.head_features': 512}
_UNET = {**_PLAIN, 'model.features': 64, **{f'model.{field}': None for field in (
    'backbone', 'backbone_width', 'output_stride', 'neck_features', 'head_features', 'dropout')}}

VARIANTS = {
    'ours': {},
    'wo_al': {'model.attention': False},
    'wo_ss': {'loss.beta': 0.0},
    'fpn': {**_PLAIN, 'model.name': 'fpn'},
    'unet': {**_UNET, 'model.name': 'unet_s5d16'},
    'ppmu': {**_UNET, 'model.name': 'ppmu'},
    'rsnu': {**_UNET, 'model.name': 'unet', 'loss.name': 'cross_entropy_tv', 'loss.lam': 0.4},
    'wave_ct': {**_PLAIN, 'model.name': 'wave_ct', 'loss.name': 'wave_ct', 'loss.lam': 1.0,
                'evaluation.style_transfer': True},
    'danet': {**_DILATED, 'model.name': 'danet'},
    'emanet': {**_DILATED, 'model.name': 'emanet', 'model.head_features': 256},
    'nonlocal': {**_DILATED, 'model.name': 'nonlocal'},
    'mean_attention': {'model.attention_scale': 'mean'},
    'class_center': {'loss.center': 'class'},
    'resnet101': {'model.backbone': 'resnet101_v1c'},
    'quick': {
        'num_steps': 700, 'batch_size': 4, 'eval_every': 350, 'log_every': 50,
        'model.backbone_width': 16, 'model.neck_features': 64, 'model.head_features': 48,
        'data.num_validation': 8.0, 'data.render_size': (768, 192), 'data.image_size': (512, 128),
        'data.patch_size': (256, 128), 'data.patch_stride': (64, 128),
        'optimizer.learning_rate': 2e-3, 'optimizer.final_learning_rate': 2e-5,
        'optimizer.warmup_steps': 20,
    },
}


def get_config(variant: str = 'ours') -> ConfigDict:
  """Returns the locked config of one variant."""
  config = ConfigDict()
  config.seed = 0
  config.num_steps = 80_000       # 0: num_epochs counts
  config.num_epochs = 0
  config.batch_size = 12
  config.eval_batch_size = 4
  config.log_every = 100          # steps
  config.eval_every = 2000        # steps; each evaluation is followed by a checkpoint
  config.max_skipped_steps = 20   # non-finite steps in a row before the run stops
  config.ema_decay = 0.0          # 0: no moving average of the variables
  config.data_parallel = 'mesh'   # or 'pmap'
  config.init_from = ''           # PyTorch weights to start from: .safetensors, .npz or .pth
  config.init_parts = ()          # what to take of them, such as ('backbone',); (): all

  config.model = dict(
      name='seam',
      num_classes=4,              # background counts
      backbone='resnet50_v1c',
      backbone_width=64,
      output_stride=32,
      neck_features=256,
      head_features=128,
      attention=True,
      attention_scale='sum',      # 'sum' as printed, or 'mean' over positions
      query_features=32,
      features=None,              # of the U-Nets
      dropout=0.1,
      dtype='float32',            # 'bfloat16' on accelerators
  )
  config.loss = dict(
      name='seam',
      lam=0.4,
      beta=0.5,
      center='component',         # or 'class'
      auxiliary_weight=0.4,       # of auxiliary heads, where a network has one
      branch_weight=1.0,          # of DANet's two branches
  )
  config.data = dict(
      name='vpi_phantom',         # or 'folder', 'built' with a directory
      directory='',
      classes=('background', 'rib', 'thoracic process', 'lump'),
      label_map=(),               # class of each label value; () keeps the values
      palette='',                 # colors of the classes in RGB masks, '000000,ff0000,...'
      channels=1,
      image_size=(1024, 256),
      patch_size=(512, 256),
      patch_stride=(128, 256),    # (0, 0): random crops
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
      learning_rate=1e-4,
      schedule='cosine',
      final_learning_rate=5e-6,
      warmup_steps=0,
      weight_decay=0.0,
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
  """Three seeds of every row of table 1."""
  for variant in ('fpn', 'unet', 'ppmu', 'rsnu', 'wave_ct', 'danet', 'emanet', 'nonlocal',
                  'wo_al', 'wo_ss', 'ours'):
    for seed in range(3):
      yield {'variant': variant, 'seed': seed}
