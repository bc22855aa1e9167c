"""What is measured: networks and attention modules with their shapes. All sides read it."""
import dataclasses
from collections.abc import Mapping
from typing import Any

SIZES = ('quick', 'paper')
PHASES = ('forward', 'train')
# The loss of a step is the cross entropy of `logits`, plus this weight times that of all other
# logits against the labels at their stride. For an attention module it is half the mean square of
# its `features`.
REST_WEIGHT = 0.4


@dataclasses.dataclass(frozen=True)
class System:
  """A network or an attention module.

  Attributes:
    title: its name in tables.
    model: fields of `models.create_model`, or the name 'attention' and its `kind`.
    shapes: [N, *S, C] of the input by size.
    smaller: fields of `model` that are different, by size.
    deviation: standard deviation of the input, whose mean is 0.
  """
  title: str
  model: Mapping[str, Any]
  shapes: Mapping[str, tuple[int, ...]]
  smaller: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)
  deviation: float = 1.0

  def fields(self, size: str) -> dict[str, Any]:
    return {**self.model, **self.smaller.get(size, {})}


def _attention(title: str, kind: str, deviation: float = 1.0) -> System:
  return System(title, dict(name='attention', kind=kind, query_features=64),
                {'tiny': (1, 6, 4, 8), 'quick': (2, 64, 32, 256), 'paper': (4, 64, 32, 512)},
                {'tiny': dict(query_features=4)}, deviation)


# The size 'paper' is that of the paper's training step, with 250 columns filled up to 256. Dropout
# is 0, so that all sides compute the same. 'tiny' is for tests.
SYSTEMS = {
    'unet': System(
        'U-Net', dict(name='unet', num_classes=1, features=64, levels=4),
        {'tiny': (2, 16, 16, 1), 'quick': (4, 256, 128, 1), 'paper': (4, 512, 256, 1)},
        {'tiny': dict(features=4, levels=1), 'quick': dict(features=32)}),
    'unet_3d': System(
        '3-D U-Net',
        dict(name='unet', num_classes=1, features=64, levels=3, upsample='nearest',
             negative_slope=0.01),
        {'tiny': (1, 8, 8, 4, 1), 'quick': (1, 192, 48, 24, 1), 'paper': (1, 384, 96, 48, 1)},
        {'tiny': dict(features=4, levels=1), 'quick': dict(features=16)}),
    'fpn': System(
        'FPN-ResNet-50',
        dict(name='fpn', num_classes=4, backbone='resnet50_v1c', backbone_width=64,
             neck_features=256, head_features=128, dropout=0.0),
        {'tiny': (2, 64, 32, 1), 'quick': (2, 256, 128, 1), 'paper': (12, 512, 256, 1)},
        {'tiny': dict(backbone_width=4, neck_features=8, head_features=8)}),
    'seam': System(
        'SEAM',
        dict(name='seam', num_classes=4, backbone='resnet50_v1c', backbone_width=64,
             neck_features=256, head_features=128, query_features=32, dropout=0.0),
        {'tiny': (2, 64, 32, 1), 'quick': (2, 128, 128, 1), 'paper': (12, 512, 256, 1)},
        {'tiny': dict(backbone_width=4, neck_features=8, head_features=8, query_features=4)}),
    'sadanet': System(
        'SADANet',
        dict(name='sadanet', num_classes=4, backbone='resnet50_v1c', backbone_width=64,
             head_features=512, auxiliary_features=256, query_features=64, dropout=0.0),
        {'tiny': (2, 32, 32, 1), 'quick': (2, 128, 128, 1), 'paper': (4, 512, 256, 1)},
        {'tiny': dict(backbone_width=4, head_features=8, auxiliary_features=8, query_features=4),
         'quick': dict(backbone_width=32, head_features=256, auxiliary_features=128)}),
    'criss_cross': _attention('criss-cross attention', 'criss_cross'),
    'position': _attention('position attention', 'position'),
    'channel': _attention('channel attention', 'channel', 0.05),
    'xray_unet': System(
        'X-ray U-Net', dict(name='xception_unet', num_classes=3, features=32, levels=3),
        {'tiny': (2, 16, 16, 3), 'quick': (3, 160, 160, 3), 'paper': (8, 512, 208, 3)},
        {'tiny': dict(features=4, levels=1)}),
}
# Parts without a PyTorch counterpart, see `pieces`.
PIECES = {
    'input_device': 'batches from memory, augmented',
    'input_stream': 'batches from files, augmented',
    'centroid_loss': 'centroid loss',
    'components': 'connected components',
    'phantom_vpi': 'VPI phantom',
    'phantom_volume': 'volume phantom',
    'phantom_xray': 'X-ray phantom',
    'predict_unet': 'prediction, U-Net',
    'predict_seam': 'prediction, SEAM',
    'layer_conv': '3x3 convolution',
    'layer_conv_wide': '3x3 convolution of many channels',
    'layer_conv_3d': '3x3x3 convolution',
    'layer_conv_1x1': '1x1 convolution',
    'layer_conv_1x1_stride_2': '1x1 convolution at stride 2',
    'layer_conv_depthwise': 'depthwise convolution',
    'layer_conv_doubled': '3x3 convolution of an upsampled image',
    'layer_conv_transposed': 'transposed convolution',
    'layer_conv_transposed_3d': '3-D transposed convolution',
    'layer_max_pool': 'max-pool',
    'layer_max_pool_3d': '3-D max-pool',
    'layer_bilinear': 'bilinear doubling',
    'layer_nearest': 'nearest doubling',
}
