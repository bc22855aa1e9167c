"""RSN-U-net and its U-Net: total variation against speckle and holes (Huang et al., 2020).

  python -m spinejax.main --config=configs/rsn_unet.py:rsn --workdir=runs/rsn

Variants are the rows of table I:
  rsn     binary cross entropy + 0.4 total variation
  unet    binary cross entropy alone
  quick   small network and images for a laptop CPU: launch/local.sh
          --config=configs/rsn_unet.py:quick took 1 min 35 s on two cores and ended with a
          per-image Dice of 0.888 (bone) on the 29 test phantoms

Protocol (paper, sections III.A and III.B): bone against background, 80 training and 29 test cases,
images resized to 1000 rows x 250 columns, random crop, horizontal flip and affine transformation,
50 epochs of Adam 0.01 with L2 1e-6; the whole image is tested, thresholded at 0.5 and the mask
resized to the original size. Ours, where the paper gives none: patches 512x250, batch 4, affine of
10 degrees, 5 % and a scale of 0.9 to 1.1.
"""
from ml_collections import ConfigDict

VARIANTS = {
    'rsn': {},
    'unet': {'loss.lam': 0.0},
    'quick': {
        'num_epochs': 0, 'num_steps': 300, 'batch_size': 4, 'eval_every': 150, 'log_every': 50,
        'model.features': 12,
        'data.num_validation': 8.0, 'data.render_size': (768, 192), 'data.image_size': (512, 128),
        'data.patch_size': (256, 128),
        'optimizer.schedule': 'cosine', 'optimizer.final_learning_rate': 1e-4,
    },
}


def get_config(variant: str = 'rsn') -> ConfigDict:
  """Returns the locked config of one variant."""
  config = ConfigDict()
  config.seed = 0
  config.num_steps = 0            # 0: num_epochs counts
  config.num_epochs = 50
  config.batch_size = 4
  config.eval_batch_size = 4
  config.log_every = 20           # steps
  config.eval_every = 200         # steps; each evaluation is followed by a checkpoint
  config.max_skipped_steps = 20   # non-finite steps in a row before the run stops
  config.ema_decay = 0.0          # 0: no moving average of the variables
  config.data_parallel = 'mesh'   # or 'pmap'
  config.init_from = ''           # PyTorch weights to start from: .safetensors, .npz or .pth
  config.init_parts = ()          # what to take of them, such as ('backbone',); (): all

  config.model = dict(
      name='unet',
      num_classes=1,              # one sigmoid logit: bone against background
      features=64,
      dtype='float32',            # 'bfloat16' on accelerators
  )
  config.loss = dict(
      name='bce_tv',
      lam=0.4,
      normalization='terms',      # or 'paper', whose two normalizers are swapped
  )
  config.data = dict(
      name='vpi_phantom',         # or 'folder', 'built' with a directory
      directory='',
      classes=('background', 'bone'),
      label_map=(0, 1, 1, 1),     # class of each label value; () keeps the values
      palette='',                 # colors of the classes in RGB masks, '000000,ff0000,...'
      channels=1,
      image_size=(1000, 250),
      patch_size=(512, 250),
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
      flip_vertical=0.0,
      rotation=10.0,              # degrees, either way
      translation=0.05,           # fraction of the patch
      scale=(0.9, 1.1),
  )
  config.optimizer = dict(
      name='adam',
      learning_rate=0.01,
      schedule='constant',
      final_learning_rate=0.0,
      warmup_steps=0,
      weight_decay=1e-6,
      gradient_clip=0.0,
  )
  config.evaluation = dict(
      resize='mask',              # to the original size: 'logits' bilinear, or 'mask' nearest
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
  """Three seeds of both rows of table I."""
  for variant in ('unet', 'rsn'):
    for seed in range(3):
      yield {'variant': variant, 'seed': seed}
