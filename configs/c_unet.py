"""C-U-net and its rivals: laminae in 3-D ultrasound volumes by three losses (Wong et al., 2021).

  python -m spinejax.main --config=configs/c_unet.py:centroid --workdir=runs/centroid

Variants are the rows of table I, one 3-D U-Net each:
  dice      Dice loss (D-U-net)
  wbce      weighted binary cross entropy (B-U-net)
  centroid  centroid loss with the straight-through surrogate and a distance floor (C-U-net as
            its text means it)
  centroid_published  the centroid loss as printed: its gradient is Dice's, times a constant
  quick     small network and volumes for a laptop CPU: launch/local.sh
            --config=configs/c_unet.py:quick took 2 min 3 s on two cores and
            ended with a Dice of 0.600 and none of 272 laminae missed on the 8 test phantoms

Protocol (paper, sections II and III): 50 training, 10 validation and 10 test volumes of 384x96x48
voxels (superior-inferior, left-right, anterior-posterior), each of mean 0 and deviation 1;
left-right flip; batch 1; Adam 1e-4, 200 epochs, the checkpoint of the lowest validation loss.
Laminae are cubes of 3x3x3 voxels; a perfect localizer reaches a Dice of about 0.65 against cubes
placed with half a voxel of noise. Ours, where the paper prints nothing: the weight 100 of positive
voxels; the probability 0.01 of a lamina before training; gradients clipped to norm 1, since the
product of distances and counts lets them fall from hundreds to one tenth, and Adam remembers.
"""
from ml_collections import ConfigDict

_NO_CENTROID = {f'loss.{field}': None for field in ('gradient', 'distance_floor', 'connectivity')}

VARIANTS = {
    'centroid': {},
    'centroid_published': {'loss.gradient': 'published', 'loss.distance_floor': 0.0},
    'dice': {**_NO_CENTROID, 'loss.name': 'dice'},
    'wbce': {**_NO_CENTROID, 'loss.name': 'weighted_bce', 'loss.positive_weight': 100.0},
    'quick': {
        'num_epochs': 0, 'num_steps': 300, 'eval_every': 100, 'log_every': 25,
        'model.features': 8,
        'data.num_train': 16.0, 'data.num_validation': 4.0, 'data.num_test': 8.0,
        'data.render_size': (192, 48, 24), 'data.image_size': (192, 48, 24),
        'data.patch_size': (192, 48, 24),
        'optimizer.learning_rate': 3e-3, 'optimizer.schedule': 'cosine',
        'optimizer.final_learning_rate': 1e-4,
    },
}


def get_config(variant: str = 'centroid') -> ConfigDict:
  """Returns the locked config of one variant."""
  config = ConfigDict()
  config.seed = 0
  config.num_steps = 0            # 0: num_epochs counts
  config.num_epochs = 200
  config.batch_size = 1
  config.eval_batch_size = 1
  config.log_every = 20           # steps
  config.eval_every = 50          # steps; each evaluation is followed by a checkpoint
  config.max_skipped_steps = 20   # non-finite steps in a row before the run stops
  config.ema_decay = 0.0          # 0: no moving average of the variables
  config.data_parallel = 'mesh'   # or 'pmap'
  config.init_from = ''           # PyTorch weights to start from: .safetensors, .npz or .pth
  config.init_parts = ()          # what to take of them, such as ('backbone',); (): all

  config.model = dict(
      name='unet',
      num_classes=1,              # one sigmoid logit: lamina against background
      features=64,
      levels=3,
      upsample='nearest',         # or 'transpose'
      negative_slope=0.01,
      dropout=0.125,
      prior=0.01,                 # probability of a lamina before training
      dtype='float32',            # 'bfloat16' on accelerators
  )
  config.loss = dict(
      name='centroid',
      gradient='straight_through',  # or 'published'
      distance_floor=1.0,         # voxels; 0 as printed
      connectivity='face',        # or 'full'
      positive_weight=None,       # of weighted_bce
  )
  config.data = dict(
      name='volume_phantom',
      directory='',
      classes=('background', 'lamina'),
      label_map=(),               # class of each label value; () keeps the values
      palette='',                 # colors of the classes in RGB masks, '000000,ff0000,...'
      channels=1,
      image_size=(384, 96, 48),
      patch_size=(384, 96, 48),
      patch_stride=(0, 0, 0),     # zeros: random crops
      num_train=50.0,             # patients; 0: all that are left
      num_validation=10.0,        # patients, or a fraction below 1
      num_test=10.0,              # patients, or a fraction below 1
      split_file='',
      split_seed=0,
      difficulty=1.0,             # of the phantom
      render_size=(384, 96, 48),  # of the phantom, its original size
      mean=(0.0,),                # after the z-score
      std=(1.0,),                 # 0: both are computed from the training images
      preparation=('rescale', 'z_score'),  # and before: 'crop_top_layer', 'crop_to_column'
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
      rotation=0.0,               # degrees, either way
      translation=0.0,            # fraction of the patch
      scale=(1.0, 1.0),
  )
  config.optimizer = dict(
      name='adam',
      learning_rate=1e-4,
      schedule='constant',
      final_learning_rate=0.0,
      warmup_steps=0,
      weight_decay=0.0,
      gradient_clip=1.0,          # norm
  )
  config.evaluation = dict(
      resize='logits',            # to the original size: 'logits' bilinear, or 'mask' nearest
      style_transfer=False,       # of a wave_ct network, before it segments
      best='loss',                # of validation: mean Dice of the bones, or 'loss'
      interlaced=False,           # True: pictures of image and mask in alternate rows too
  )
  config.angle = dict(
      method='center_of_lamina',  # 'uca', 'center_of_lamina', 'centerline_cobb'; '': none
      spacing=(),                 # mm per pixel (y, x) where files do not say; (1.0, 1.0): square
      min_deg=5.0,                # degrees; smaller swings of the spine are no curves
      bands=(10.0, 25.0, 40.0),   # degrees; limits of none, mild, moderate and severe
      calibration=(),             # (slope, intercept, source) of your own; shown beside the angle
  )
  config.lock()
  config.update_from_flattened_dict(VARIANTS[variant])
  return config


def sweep():
  """Three seeds of every row of table I."""
  for variant in ('dice', 'wbce', 'centroid', 'centroid_published'):
    for seed in range(3):
      yield {'variant': variant, 'seed': seed}
