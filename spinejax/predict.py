"""Masks at original size for images a trained run has never seen.

  python -m spinejax.predict --workdir=runs/seam_quick --input=my_images --output=my_masks

Writes NAME_mask.png (class indices) and NAME_overlay.png for every image. A file that cannot be
read is reported and skipped, and the exit status is then 1. A wave_ct network segments an image
after a transfer to the style of the training image nearest to it, as its config says or
--[no]style_transfer; NAME_styled.png is then what it segmented.
"""
import pathlib
import sys

from absl import flags

from spinejax import cli

_WORKDIR = flags.DEFINE_string('workdir', None, 'Folder of a trained run.', required=True)
_INPUT = flags.DEFINE_string('input', None, 'An image, or a folder of images.', required=True)
_OUTPUT = flags.DEFINE_string('output', None, 'Folder for the masks; made if absent.',
                              required=True)
_CHECKPOINT = flags.DEFINE_enum('checkpoint', 'best', ('best', 'last'), 'Which checkpoint to use.')
_STYLE_TRANSFER = flags.DEFINE_boolean(
    'style_transfer', None, 'Whether a wave_ct network brings images to a style of its training '
    'images first; by default as config.evaluation.style_transfer of the run says.')


def main(argv) -> int:
  del argv
  from spinejax.data import files  # late: --help needs none of this

  source, output = pathlib.Path(_INPUT.value), pathlib.Path(_OUTPUT.value)
  paths = files.list_images(source)
  if output.resolve() == source.resolve():
    raise ValueError(f'--output must be another folder than --input, both are {source}.')
  cli.configure_jax()
  from rich.console import Console

  from spinejax import inference, logs

  predictor = inference.load_predictor(_WORKDIR.value, checkpoint=_CHECKPOINT.value,
                                       style_transfer=_STYLE_TRANSFER.value)
  output.mkdir(parents=True, exist_ok=True)
  faults, console = 0, Console()
  with logs.progress_of('predicting', len(paths), console) as progress:
    for _, fault in inference.predict_files(predictor, paths, output):
      progress.advance()
      if fault:
        faults += 1
        print(f'skipped: {fault}', file=sys.stderr)
  how = ' after style transfer' if predictor.transfer is not None else ''
  console.print(f'{len(paths) - faults} of {len(paths)} images predicted{how} with the checkpoint '
                f'of step {predictor.step}; masks and overlays are in {output}.', highlight=False,
                soft_wrap=True)
  return 1 if faults else 0


if __name__ == '__main__':
  cli.run(main)
