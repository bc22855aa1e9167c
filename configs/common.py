"""Every field of a config, once, with its meaning, unit and default.

There is one kind of config for each kind of data: `ultrasound`, `volumes` and `xrays`. A paper's
config starts from one of them and states only what that paper says:

  def get_config(variant='ours'):
    return common.create_config(common.ultrasound(), PAPER, VARIANTS[variant])

The fields of `model` and `loss` depend on their `name`; the signatures in `spinejax.models` and
`spinejax.losses` document them and hold their defaults.
"""
from collections.abc import Callable, Mapping
from typing import Any

from ml_collections import ConfigDict


def _shared() -> ConfigDict:
  """Fields of every kind of data."""
  config = ConfigDict()
  config.seed = 0                 # of initialization, dropout, augmentation and order of cases
  config.num_steps = 0            # optimizer steps; 0: num_epochs counts
  config.num_epochs = 0           # passes over the training cases, where num_steps is 0
  config.batch_size = 4           # patches per training step
  config.eval_batch_size = 4      # whole images per step of validation and test
  config.log_every = 20           # steps between rows of metrics.jsonl
  config.eval_every = 200         # steps between validations, each followed by a checkpoint
  config.max_skipped_steps = 20   # non-finite steps in a row that stop the run; 0: never
  config.ema_decay = 0.0          # decay of the moving average of the variables; 0: none
  config.data_parallel = 'mesh'   # 'mesh' (jit over a mesh of devices) or 'pmap'
  config.init_from = ''           # PyTorch weights to start from: .safetensors, .npz or .pth
  config.init_parts = ()          # parts to take of them, such as ('backbone',); (): all
  config.model = dict(
      name='',                    # a key of spinejax.models.MODELS
      num_classes=1,              # logits per pixel: background counts, 1 is a sigmoid
      dtype='float32',            # of the computation: 'float32' or 'bfloat16'
  )
  config.loss = dict(name='')     # a key of spinejax.losses.LOSSES
  config.data = dict(
      name='',                    # a phantom, or 'folder' or 'built' with a directory
      directory='',               # of 'folder' and 'built'
      classes=('background',),    # names by class index
      channels=1,                 # 1 gray, 3 color
      image_size=(0, 0),          # pixels of the whole image at the network
      patch_size=(0, 0),          # pixels of a training patch
      patch_stride=(0, 0),        # pixels between patches; zeros: random crops
      num_train=0.0,              # patients; 0: all that are left
      num_validation=0.0,         # patients, or a fraction below 1
      num_test=0.0,               # patients, or a fraction below 1
      split_file='',              # JSON {"train": [ids], "validation": [ids], "test": [ids]}
      split_seed=0,               # of the split by patient
      difficulty=1.0,             # of the phantom
      render_size=(0, 0),         # of the phantom: pixels at its original size
      mean=(0.0,),                # gray levels, one value or one per channel
      std=(1.0,),                 # gray levels; 0: mean and std of the training images
      preparation=('rescale',),   # steps from the original image to image_size
      cache='auto',               # training images on the 'device', or a 'stream' from disk
  )
  config.augment = dict(
      flip_horizontal=0.5,        # probability
      flip_vertical=0.0,          # probability
      rotation=0.0,               # degrees, uniform in both directions
      translation=0.0,            # fraction of the patch, uniform in both directions
      scale=(1.0, 1.0),           # limits of a uniform factor
  )
  config.optimizer = dict(
      name='adam',                # 'adam', 'adamw', 'rmsprop' or 'sgd'
      learning_rate=1e-3,         # after the warm-up
      schedule='constant',        # 'constant', 'cosine' or 'polynomial'
      final_learning_rate=0.0,    # at the last step of 'cosine' and 'polynomial'
      warmup_steps=0,             # steps of a linear warm-up
      weight_decay=0.0,           # L2 in the gradient; decoupled for 'adamw'
      gradient_clip=0.0,          # largest global norm; 0: none
  )
  config.evaluation = dict(
      resize='logits',            # to the original size: 'logits' bilinear, or 'mask' nearest
      best='dice',                # checkpoint by validation: mean foreground 'dice', or 'loss'
  )
  config.angle = dict(
      method='',                  # 'uca', 'center_of_lamina', 'centerline_cobb'; '': no angle
      spacing=(),                 # mm per pixel by axis where files have none; ones: square pixels
      min_deg=5.0,                # degrees; a smaller swing of the spine is not a curve
      bands=(10.0, 25.0, 40.0),   # degrees between none, mild, moderate and severe
      calibration=(),             # (slope, intercept, source): a calibrated angle is shown too
  )
  return config


def _images() -> ConfigDict:
  """Adds the fields of 2-D images."""
  config = _shared()
  config.data.label_map = ()      # class of each label value; (): the values are the classes
  config.data.palette = ''        # of colored masks, by class: '000000,ff0000' or 'red,green'
  config.evaluation.interlaced = False  # also show image and mask in alternate rows
  return config


def ultrasound() -> ConfigDict:
  """2-D coronal ultrasound (VPI): 80 training and 29 test phantoms, as the papers have cases."""
  config = _images()
  config.data.update(
      name='vpi_phantom', classes=('background', 'rib', 'thoracic process', 'lump'),
      num_train=80.0, num_test=29.0, render_size=(2560, 640),
      strengths=dict(             # of the phantom: factors of the difficulty
          speckle=1.0, mottling=1.0, gain=1.0, holes=1.0, false_bones=1.0),
      mean=(75.99,), std=(84.15,))  # gray levels of the published training set
  config.angle.method = 'uca'
  return config


def xrays() -> ConfigDict:
  """Posteroanterior X-rays; `preparation` also has 'fit', 'rescale_nearest' and 'z_score'."""
  config = _images()
  config.data.update(
      name='xray_phantom', classes=('background', 'spine', 'border'), render_size=(1200, 450),
      labels='',                  # made of vertebrae: 'trimap', 'column', 'bodies', 'levels'
      border=0.02)                # width of a trimap's border, fraction of the image's width
  config.evaluation.interlaced = True
  config.angle.method = 'centerline_cobb'
  return config


def volumes() -> ConfigDict:
  """3-D ultrasound, axes superior-inferior, left-right, anterior-posterior.

  `preparation` has 'crop_top_layer', 'crop_to_column', 'rescale' and 'z_score', in this order.
  """
  config = _shared()
  config.data.update(
      name='volume_phantom', classes=('background', 'lamina'),
      image_size=(384, 96, 48), patch_size=(384, 96, 48), patch_stride=(0, 0, 0),
      render_size=(384, 96, 48), preparation=('rescale', 'z_score'),
      top_layer='interface',      # what 'crop_top_layer' removes: found, or mm from the skin
      column_width=60.0,          # mm that 'crop_to_column' keeps about the spinous column
      labels='cubes',             # 3x3x3 voxels about each lamina, or the 'mask' as it is
      axes='')                    # where axes point, such as 'RAS'; '': as the files say
  config.evaluation.best = 'loss'
  config.angle.method = 'center_of_lamina'
  return config


# Settings of the quick variants on VPI phantoms: 3/10 of the original size, 8 validation cases.
QUICK_ULTRASOUND = {'batch_size': 4, 'log_every': 50, 'data.num_validation': 8.0,
                    'data.render_size': (768, 192), 'data.image_size': (512, 128)}

# The small protocol of docs/small_protocol.md: narrow networks that take a similar time, trained on
# whole images with the same augmentation, schedule and cases.
SMALL_ULTRASOUND = {
    'num_steps': 1500, 'num_epochs': 0, 'batch_size': 2, 'eval_batch_size': 4, 'log_every': 50,
    'eval_every': 250, 'ema_decay': 0.99,
    'widths': dict(backbone_width=16, neck_features=48, head_features=32, auxiliary_features=32,
                   query_features=8, features=8),
    'data.num_validation': 12.0, 'data.num_test': 60.0, 'data.difficulty': 3.25,
    'data.render_size': (768, 192), 'data.image_size': (384, 96), 'data.patch_size': (384, 96),
    'data.patch_stride': (0, 0),
    'augment.flip_vertical': 0.0, 'augment.rotation': 10.0, 'augment.translation': 0.05,
    'augment.scale': (0.9, 1.1),
    'optimizer.schedule': 'cosine', 'optimizer.warmup_steps': 50, 'optimizer.weight_decay': 0.0,
    'optimizer.learning_rate': 6e-3, 'optimizer.final_learning_rate': 2e-5,
    'evaluation.resize': 'logits',
}

# A row of several tables: the U-Net of RSN-U-net, its total variation with several classes.
RSNU = {'model': dict(name='unet', features=64),
        'loss': dict(name='cross_entropy_tv', tv_weight=0.4)}


def create_config(config: ConfigDict, *overrides: Mapping[str, Any]) -> ConfigDict:
  """Returns `config`, locked, with the overrides applied in order.

  A key is a dotted field, as 'data.image_size'. The keys 'model' and 'loss' replace the whole
  group, whose fields depend on its name; what every model has (num_classes, dtype) stays. The key
  'widths' sets the fields of the model that it has, and leaves out the others.

  Raises:
    KeyError: a field that the config does not have.
    TypeError: a value of another type.
  """
  for fields in overrides:
    for name, value in fields.items():
      if name in ('model', 'loss'):
        kept = {field: config[name][field] for field in ('num_classes', 'dtype')
                if field in config[name]}
        config[name] = ConfigDict({**kept, **value})
      elif name == 'widths':
        config.model.update({field: width for field, width in value.items()
                             if field in config.model})
      else:
        config.lock()
        config.update_from_flattened_dict({name: value})
        config.unlock()
  return config.lock()


def select(variants: Mapping[str, Mapping[str, Any]], names: str) -> list[Mapping[str, Any]]:
  """The overrides of 'NAME' or of several, 'NAME,NAME', of which the later ones win."""
  return [variants[name] for name in names.split(',')]


def rows(names: str) -> list[dict[str, Any]]:
  """Rows of a table, one for each variant of 'NAME NAME'."""
  return [{'variant': name} for name in names.split()]


def three_seeds(tables: Mapping[str, list[dict[str, Any]]]) -> Callable[[], list[dict[str, Any]]]:
  """The `sweep` of a config: three seeds of the rows of all tables, each row once."""
  rows_of_all = [row for table in tables.values() for row in table]
  return lambda: [{**row, 'seed': seed} for index, row in enumerate(rows_of_all)
                  if row not in rows_of_all[:index] for seed in range(3)]
