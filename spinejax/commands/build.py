"""Checks a folder of images or volumes and builds a dataset of it.

  spinejax build --input=my_images --classes=background,nerve,vessel
  spinejax build --input=my_images --classes=background,nerve,vessel --output=my_dataset
  spinejax build --input=xrays --classes=background,spine,border --palette=red,green,blue
  spinejax build --input=volumes --classes=background,lamina --output=my_volumes

Without --output the folder is only checked. Every file is decoded first. Each fault is one line,
and nothing is written if there is one. What reading changed (colors snapped, gray scale inverted)
is printed too.

Images (PNG, JPEG, TIFF; X-rays also DICOM) are images/NAME.png with masks/NAME.png, or
dataset/{train,test}/NAME.png with groundtruth/{train,test}/NAME_bone_3.png, or X-rays NAME.jpg with
NAME-mask-trimap.png. Masks hold class indices, 0 and 255 for two classes, or colors (--palette).
Labels are also made of corners of vertebrae (landmarks/NAME.csv or .mat, or the folders data and
labels of AASCE) and, with --labels=trimap, of masks of vertebral bodies.

Volumes are images/NAME.nii.gz (or .nii, .nrrd, .mha, .npz) with a mask masks/NAME.nii.gz or a table
of landmarks landmarks/NAME.csv or NAME.mrk.json. An optional cases.csv with the columns
name,patient,spacing_y_mm,spacing_x_mm tells which images share a patient and the size of a pixel.
"""
from absl import flags

POSITIONALS = ()

_INPUT = flags.DEFINE_string('input', None, 'Folder of images and masks, or of volumes.',
                             required=True)
_OUTPUT = flags.DEFINE_string('output', '', 'Folder of the dataset; empty: only check.')
_CLASSES = flags.DEFINE_list('classes', None, 'Names of the labels in order, background first.',
                             required=True)
_PALETTE = flags.DEFINE_string(
    'palette', '', "Colors of the labels in masks, '000000,ff0000,...' or 'red,green,blue', or "
    "their gray values, '2,1,3'.")
_CHANNELS = flags.DEFINE_integer('channels', 1, 'Channels to keep: 1 gray, 3 color.')
_AXES = flags.DEFINE_string(
    'axes', '', 'Where the axes of volumes point, such as RAS; empty: as their files say.')
_LABELS = flags.DEFINE_string(
    'labels', '', 'What masks or corners of vertebrae become: mask, trimap, column, bodies or '
    'levels; empty: masks as they are, corners by the number of classes.')
_BORDER = flags.DEFINE_float(
    'border', None, 'Width of the border of such a trimap, as a fraction of the width of the '
    'image; empty: 0.02.')
_SPLIT_FILE = flags.DEFINE_string(
    'split_file', '', 'JSON file {"train": [ids], "validation": [], "test": []}.')
_NUM_VALIDATION = flags.DEFINE_float(
    'num_validation', 0.1, 'Patients for validation: a number, or a fraction below 1.')
_NUM_TEST = flags.DEFINE_float('num_test', 0.2, 'Patients for test: a number, or a fraction.')
_SPLIT_SEED = flags.DEFINE_integer('split_seed', 0, 'Seed of the split.')
_OVERWRITE = flags.DEFINE_bool('overwrite', False, 'Replace the dataset in --output.')


def main(_) -> None:
  from spinejax.data import build
  from spinejax.readers import masks, trimaps

  border = trimaps.BORDER_WIDTH if _BORDER.value is None else _BORDER.value
  build.build(
      _INPUT.value, _OUTPUT.value, [name.strip() for name in _CLASSES.value],
      palette=masks.parse_palette(_PALETTE.value), channels=_CHANNELS.value, axes=_AXES.value,
      labels=_LABELS.value, border=border, split_file=_SPLIT_FILE.value,
      num_validation=_NUM_VALIDATION.value, num_test=_NUM_TEST.value,
      split_seed=_SPLIT_SEED.value, overwrite=_OVERWRITE.value)
