"""X-ray U-Net: the spine in posteroanterior X-rays by Keras' Xception-style U-Net (Selvia).

  python -m spinejax.main --config=configs/xray_unet.py:paper --workdir=runs/xray

Variants:
  paper    as published: images squeezed to 160x160 by nearest neighbor, three channels of gray
           levels 0 to 255 as they are, RMSprop, no augmentation (loss 0.24, pixel accuracy 0.92 on
           129 X-rays of patients that are not public)
  modern   the same network with the aspect ratio kept, gray images of mean 0 and deviation 1,
           flips, rotation and scaling, cross entropy + squared Dice, Adam with cosine decay
  modern_unet, modern_fpn   the U-Net of RSN-U-net and a panoptic FPN trained like `modern`
  quick    the modern way with small phantoms and half the width for a laptop CPU:
           launch/local.sh --config=configs/xray_unet.py:quick took 1 min 31 s on two cores and
           ended with a per-image Dice of 0.952 (spine), 0.961 (spine + border) on 29 test phantoms

Protocol of `paper`: 481 training and 129 test X-rays, 15 epochs of batches of 3, RMSprop 1e-3, the
checkpoint of the lowest validation loss. The paper says 150x150, which cannot pass through the
network; its code has 160x160. Of the 481 it holds out an unknown number for validation: 48 here.
Its trimaps have the classes core, background and border as 1, 2 and 3, and its network a fourth
output that no label asks for; here background is 0 and there are three outputs.
"""
from ml_collections import ConfigDict

_MODERN = {
    'num_epochs': 60, 'batch_size': 8, 'eval_every': 540,
    'model.momentum': 0.9, 'loss.name': 'cross_entropy_dice', 'loss.lam': 1.0,
    'data.channels': 1, 'data.image_size': (512, 208), 'data.patch_size': (512, 208),
    'data.mean': (0.0,), 'data.preparation': ('fit', 'z_score'),
    'augment.flip_horizontal': 0.5, 'augment.rotation': 10.0, 'augment.translation': 0.05,
    'augment.scale': (0.9, 1.1),
    'optimizer.name': 'adam', 'optimizer.schedule': 'cosine',
    'optimizer.final_learning_rate': 1e-5,
    'evaluation.resize': 'logits', 'evaluation.best': 'dice',
}
_NOT_XCEPTION = {'model.levels': None, 'model.momentum': None}

VARIANTS = {
    'paper': {},
    'modern': _MODERN,
    'modern_unet': {**_MODERN, **_NOT_XCEPTION, 'model.name': 'unet'},
    'modern_fpn': {**_MODERN, **_NOT_XCEPTION, 'model.name': 'fpn', 'model.features': None,
                   'model.backbone': 'resnet50_v1c', 'batch_size': 4},
    'quick': {
        **_MODERN,
        'num_epochs': 0, 'num_steps': 300, 'eval_every': 100, 'log_every': 25,
        'model.features': 16,
        'data.num_train': 80.0, 'data.num_validation': 10.0, 'data.num_test': 29.0,
        'data.render_size': (400, 150), 'data.image_size': (256, 96), 'data.patch_size': (256, 96),
        'optimizer.learning_rate': 3e-3,
    },
}


def get_config(variant: str = 'paper') -> ConfigDict:
  """Returns the locked config of one variant."""
  config = ConfigDict()
  config.seed = 0
  config.num_steps = 0            # 0: num_epochs counts
  config.num_epochs = 15
  config.batch_size = 3
  config.eval_batch_size = 4
  config.log_every = 20           # steps
  config.eval_every = 145         # steps; each evaluation is followed by a checkpoint
  config.max_skipped_steps = 20   # non-finite steps in a row before the run stops
  config.ema_decay = 0.0          # 0: no moving average of the variables
  config.data_parallel = 'mesh'   # or 'pmap'
  config.init_from = ''           # PyTorch weights to start from: .safetensors, .npz or .pth
  config.init_parts = ()          # what to take of them, such as ('backbone',); (): all

  config.model = dict(
      name='xception_unet',
      num_classes=3,              # background counts
      features=32,
      levels=3,
      momentum=0.99,              # of the running statistics of batch norm
      backbone=None,              # of an FPN
      dtype='float32',            # 'bfloat16' on accelerators
  )
  config.loss = dict(
      name='cross_entropy',
      lam=None,                   # of cross_entropy_dice
  )
  config.data = dict(
      name='xray_phantom',        # or 'folder', 'built' with a directory
      directory='',
      classes=('background', 'spine', 'border'),
      label_map=(),               # class of each label value; () keeps the values
      palette='',                 # of the classes in masks: 'red,green,blue', hex or '2,1,3'
      channels=3,
      image_size=(160, 160),
      patch_size=(160, 160),
      patch_stride=(0, 0),        # (0, 0): random crops
      num_train=433.0,            # patients; 0: all that are left
      num_validation=48.0,        # patients, or a fraction below 1
      num_test=129.0,             # patients, or a fraction below 1
      split_file='',
      split_seed=0,
      difficulty=1.0,             # of the phantom
      render_size=(1200, 450),    # of the phantom, its original size
      mean=(0.0,),                # gray levels; or per channel
      std=(1.0,),                 # 0: both are computed from the training images
      preparation=('rescale_nearest',),  # or 'rescale', 'fit' (aspect ratio kept); 'z_score'
      top_layer='interface',      # of volumes; or mm from the skin
      column_width=60.0,          # of volumes, mm about the spinous column
      labels='',                  # made of vertebrae: 'trimap', 'column', 'bodies', 'levels'
      border=0.02,                # of trimaps made of vertebrae, fraction of the image's width
      axes='',                    # of volumes, such as 'RAS'; '': as their files say
      cache='auto',               # 'device', 'stream'
  )
  config.augment = dict(
      flip_horizontal=0.0,
      flip_vertical=0.0,
      rotation=0.0,               # degrees, either way
      translation=0.0,            # fraction of the patch
      scale=(1.0, 1.0),
  )
  config.optimizer = dict(
      name='rmsprop',
      learning_rate=1e-3,
      schedule='constant',
      final_learning_rate=0.0,
      warmup_steps=0,
      weight_decay=0.0,
      gradient_clip=0.0,
  )
  config.evaluation = dict(
      resize='mask',              # to the original size: 'logits' bilinear, or 'mask' nearest
      style_transfer=False,       # of a wave_ct network, before it segments
      best='loss',                # of validation: mean Dice of the bones, or 'loss'
      interlaced=True,            # True: pictures of image and mask in alternate rows too
  )
  config.angle = dict(
      method='centerline_cobb',   # 'uca', 'center_of_lamina', 'centerline_cobb'; '': none
      spacing=(),                 # mm per pixel (y, x) where files do not say; (1.0, 1.0): square
      min_deg=5.0,                # degrees; smaller swings of the spine are no curves
      bands=(10.0, 25.0, 40.0),   # degrees; limits of none, mild, moderate and severe
      calibration=(),             # (slope, intercept, source) of your own; shown beside the angle
  )
  config.lock()
  config.update_from_flattened_dict(VARIANTS[variant])
  return config


def sweep():
  """Three seeds of both ways."""
  for variant in ('paper', 'modern'):
    for seed in range(3):
      yield {'variant': variant, 'seed': seed}
