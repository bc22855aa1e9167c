"""Counts parameters and multiply-adds of every variant of the 2-D ultrasound papers.

  python -m benchmarks.networks --output=launch/results/networks.jsonl

The input is 512x512x3 with 4 classes, as in table III of SADANet.
"""
import pathlib

from absl import flags

from benchmarks import facts
from spinejax.commands import cli

POSITIONALS = ()
INPUT = (512, 512, 3)
SKIPPED = ('quick', 'small', 'printed', 'printed_channel', 'printed_affinity', 'mean', 'bone_unit',
           'pixel_unit', 'class_center', 'resnet101')  # variants of our own

_OUTPUT = flags.DEFINE_string('output', None, 'JSON Lines file to write.', required=True)


def main(argv) -> None:
  del argv
  from spinejax import config as config_lib
  from spinejax.models import cost, create_model

  output = pathlib.Path(_OUTPUT.value)
  output.unlink(missing_ok=True)
  for paper in ('sadanet', 'seam'):
    module = config_lib.open_config(paper).module
    for variant in module.VARIANTS:
      if variant in SKIPPED:
        continue
      config = config_lib.load_config(f'{paper}:{variant}')
      model = create_model(config.model)
      flops = cost.flops(model, INPUT)
      facts.append_row(output, {
          'config': f'{paper}:{variant}', 'input': INPUT,
          'parameters': cost.parameters(model, INPUT).total, 'modules': flops.modules,
          'products': flops.products} | facts.machine_facts())


if __name__ == '__main__':
  cli.run(main)
