"""The systems in plain PyTorch, as their papers and frameworks write them. Arrays are [N, C, *S].

This code is independent of `spinejax.models`. Parameters have the names of MMSegmentation if it has
the network, so `models.pretrained` can import them. Sizes must be multiples of the strides.
"""
import math

import torch
from torch import nn
from torch.nn import functional as F


def conv(rank, cin, cout, kernel_size=3, stride=1, dilation=1, bias=True):
  kind = nn.Conv3d if rank == 3 else nn.Conv2d
  padding = dilation * (kernel_size - 1) // 2
  return kind(cin, cout, kernel_size, stride, padding, dilation, bias=bias)


def norm(rank, features, eps=1e-5):
  return (nn.BatchNorm3d if rank == 3 else nn.BatchNorm2d)(features, eps)


class ConvNorm(nn.Module):
  """Convolution, batch norm, leaky ReLU."""

  def __init__(self, cin, cout, kernel_size=3, bias=False, slope=0.0, rank=2):
    super().__init__()
    self.conv, self.bn = conv(rank, cin, cout, kernel_size, bias=bias), norm(rank, cout)
    self.activation = nn.LeakyReLU(slope, inplace=True) if slope else nn.ReLU(inplace=True)

  def forward(self, x):
    return self.activation(self.bn(self.conv(x)))


class UNet(nn.Module):

  def __init__(self, rank, channels, num_classes, features, levels, upsample='transpose',
               negative_slope=0.0):
    super().__init__()
    self.levels, self.rank, self.upsample = levels, rank, upsample
    cin = channels
    for level in range(levels + 1):
      cin = self._stack('encoder', level, cin, features * 2 ** level, negative_slope)
    for level in reversed(range(levels)):
      width = features * 2 ** level
      if upsample == 'transpose':
        kind = nn.ConvTranspose3d if rank == 3 else nn.ConvTranspose2d
        self.add_module(f'upsample_{level}', kind(cin, width, 2, 2))
        cin = width
      cin = self._stack('decoder', level, cin + width, width, negative_slope)
    self.classifier = conv(rank, features, num_classes, 1)

  def _stack(self, side, level, cin, cout, slope):
    for part in (1, 2):
      self.add_module(f'{side}_{level}_{part}', ConvNorm(cin, cout, 3, True, slope, self.rank))
      cin = cout
    return cout

  def _apply_stack(self, side, level, x):
    for part in (1, 2):
      x = getattr(self, f'{side}_{level}_{part}')(x)
    return x

  def forward(self, x):
    pool = F.max_pool3d if self.rank == 3 else F.max_pool2d
    skips = []
    for level in range(self.levels):
      x = self._apply_stack('encoder', level, x)
      skips.append(x)
      x = pool(x, 2)
    x = self._apply_stack('encoder', self.levels, x)
    for level in reversed(range(self.levels)):
      if self.upsample == 'transpose':
        x = getattr(self, f'upsample_{level}')(x)
      else:
        x = F.interpolate(x, scale_factor=2)
      x = self._apply_stack('decoder', level, torch.cat([skips[level], x], 1))
    return {'logits': self.classifier(x)}


class Bottleneck(nn.Module):

  def __init__(self, cin, width, stride, dilation):
    super().__init__()
    self.conv1, self.bn1 = conv(2, cin, width, 1, bias=False), norm(2, width)
    self.conv2 = conv(2, width, width, 3, stride, dilation, bias=False)
    self.bn2 = norm(2, width)
    self.conv3, self.bn3 = conv(2, width, 4 * width, 1, bias=False), norm(2, 4 * width)
    self.downsample = None
    if stride > 1 or cin != 4 * width:
      self.downsample = nn.Sequential(conv(2, cin, 4 * width, 1, stride, bias=False),
                                      norm(2, 4 * width))

  def forward(self, x):
    y = F.relu(self.bn1(self.conv1(x)), inplace=True)
    y = F.relu(self.bn2(self.conv2(y)), inplace=True)
    y = self.bn3(self.conv3(y))
    return F.relu(y + (x if self.downsample is None else self.downsample(x)), inplace=True)


class ResNet50(nn.Module):
  """ResNetV1c-50 of MMSegmentation at output stride 32 or 8."""

  def __init__(self, channels, width, output_stride):
    super().__init__()
    stem, cin = [], channels
    for i, cout in enumerate((width // 2, width // 2, width)):
      stem += [conv(2, cin, cout, 3, 1 if i else 2, bias=False), norm(2, cout), nn.ReLU(True)]
      cin = cout
    self.stem = nn.Sequential(*stem)
    strides, dilations = (1, 2, 2, 2), (1, 1, 1, 1)
    if output_stride == 8:
      strides, dilations = (1, 2, 1, 1), (1, 1, 2, 4)
    for stage, (blocks, stride, dilation) in enumerate(zip((3, 4, 6, 3), strides, dilations)):
      layer = []
      for block in range(blocks):
        first = block == 0
        layer.append(Bottleneck(cin, width * 2 ** stage, stride if first else 1,
                                max(dilation // 2, 1) if first else dilation))
        cin = 4 * width * 2 ** stage
      self.add_module(f'layer{stage + 1}', nn.Sequential(*layer))

  def forward(self, x):
    x = F.max_pool2d(self.stem(x), 3, 2, 1)
    features = []
    for layer in (self.layer1, self.layer2, self.layer3, self.layer4):
      x = layer(x)
      features.append(x)
    return features


class Neck(nn.Module):

  def __init__(self, widths, features):
    super().__init__()
    self.lateral_convs = nn.ModuleList(conv(2, width, features, 1) for width in widths)
    self.fpn_convs = nn.ModuleList(conv(2, features, features) for _ in widths)

  def forward(self, inputs):
    laterals = [lateral(x) for lateral, x in zip(self.lateral_convs, inputs)]
    for i in range(len(laterals) - 1, 0, -1):
      laterals[i - 1] = laterals[i - 1] + F.interpolate(laterals[i], scale_factor=2)
    return [output(x) for output, x in zip(self.fpn_convs, laterals)]


class FPNHead(nn.Module):

  def __init__(self, cin, features, num_classes):
    super().__init__()
    def double():
      return nn.Upsample(scale_factor=2, mode='bilinear')
    self.scale_heads = nn.ModuleList([nn.Sequential(ConvNorm(cin, features))])
    for level in range(1, 4):
      steps = [module for step in range(level)
               for module in (ConvNorm(features if step else cin, features), double())]
      self.scale_heads.append(nn.Sequential(*steps))
    self.conv_seg = conv(2, features, num_classes, 1)

  def forward(self, inputs):
    return sum(head(x) for head, x in zip(self.scale_heads, inputs))


class StructureAffinity(nn.Module):
  """SEAM, eq. 2 to 5, with the mean query of each class."""

  def __init__(self, features, query_features, num_classes):
    super().__init__()
    self.theta = conv(2, features, query_features, 1)
    self.phi = conv(2, features, num_classes, 1)
    self.delta = conv(2, query_features, features, 1)
    self.rho = ConvNorm(2 * features, features)

  def forward(self, v):
    key = self.phi(v)
    structure = key.float().softmax(1).flatten(2)
    energy = self.theta(v).float().flatten(2) @ structure.transpose(1, 2)
    energy = energy / structure.sum(2).unsqueeze(1)
    rebuilt = (energy.softmax(-1) @ structure).unflatten(2, v.shape[2:])
    return self.rho(torch.cat([self.delta(rebuilt.to(v.dtype)), v], 1)), key


class FPN(nn.Module):
  """Panoptic FPN, with SEAM's attention if `query_features`."""

  def __init__(self, channels, num_classes, width, neck_features, head_features, query_features=0):
    super().__init__()
    self.backbone = ResNet50(channels, width, 32)
    self.neck = Neck([4 * width * 2 ** i for i in range(4)], neck_features)
    self.decode_head = FPNHead(neck_features, head_features, num_classes)
    if query_features:
      self.attention = StructureAffinity(head_features, query_features, num_classes)

  def forward(self, x):
    outputs = {}
    x = self.decode_head(self.neck(self.backbone(x)))
    if hasattr(self, 'attention'):
      x, outputs['key_logits'] = self.attention(x)
    logits = F.interpolate(self.decode_head.conv_seg(x).float(), scale_factor=4, mode='bilinear')
    return {'logits': logits, **outputs}


class CrissCross(nn.Module):
  """CCNet's attention along the column, without the pixel itself, and the row."""

  def __init__(self, features, query_features):
    super().__init__()
    self.query_conv = conv(2, features, query_features, 1)
    self.key_conv = conv(2, features, query_features, 1)
    self.value_conv = conv(2, features, features, 1)
    self.gamma = nn.Parameter(torch.zeros(()))

  def forward(self, x):
    n, _, height, width = x.shape
    def columns(y):
      return y.permute(0, 3, 1, 2).reshape(n * width, -1, height)  # [NW,C,H]
    def rows(y):
      return y.permute(0, 2, 1, 3).reshape(n * height, -1, width)  # [NH,C,W]
    query, key, value = (layer(x).float()
                         for layer in (self.query_conv, self.key_conv, self.value_conv))
    itself = torch.diag(torch.full((height,), float('inf'), device=x.device))
    column = columns(query).transpose(1, 2) @ columns(key) - itself
    column = column.view(n, width, height, height).transpose(1, 2)  # [N,H,W,H]
    row = (rows(query).transpose(1, 2) @ rows(key)).view(n, height, width, width)
    weights = torch.cat([column, row], 3).softmax(3)
    along_column = weights[..., :height].transpose(1, 2).reshape(n * width, height, height)
    along_row = weights[..., height:].reshape(n * height, width, width)
    y = (columns(value) @ along_column.transpose(1, 2)).view(n, width, -1, height)
    z = (rows(value) @ along_row.transpose(1, 2)).view(n, height, -1, width)
    return (x.float() + self.gamma * (y.permute(0, 2, 3, 1) + z.permute(0, 2, 1, 3))).to(x.dtype)


class Position(nn.Module):
  """DANet's position attention."""

  def __init__(self, features, query_features):
    super().__init__()
    self.query_project = conv(2, features, query_features, 1)
    self.key_project = conv(2, features, query_features, 1)
    self.value_project = conv(2, features, features, 1)
    self.gamma = nn.Parameter(torch.zeros(()))

  def forward(self, x):
    query, key, value = (layer(x).float().flatten(2) for layer in (
        self.query_project, self.key_project, self.value_project))
    weights = (query.transpose(1, 2) @ key).softmax(-1)
    return (x.float() + self.gamma * (value @ weights.transpose(1, 2)).view(x.shape)).to(x.dtype)


class Channel(nn.Module):
  """DANet's channel attention, by the softmax of distances."""

  def __init__(self):
    super().__init__()
    self.gamma = nn.Parameter(torch.zeros(()))

  def forward(self, x):
    flat = x.float().flatten(2)
    energy = flat @ flat.transpose(1, 2)
    energy = energy.amax(-1, keepdim=True) - energy
    return (x.float() + self.gamma * (energy.softmax(-1) @ flat).view(x.shape)).to(x.dtype)


class CosineChannel(nn.Module):
  """SADANet's channel attention, by the softmax of cosines."""

  def __init__(self):
    super().__init__()
    self.temperature = nn.Parameter(torch.full((), 10.0))

  def forward(self, x):
    flat = x.float().flatten(2)
    unit = F.normalize(flat, dim=2)
    weights = (self.temperature * unit @ unit.transpose(1, 2)).softmax(-1)
    return (x.float() + (weights @ flat).view(x.shape)).to(x.dtype)


class DualHead(nn.Module):

  def __init__(self, cin, features, query_features, num_classes):
    super().__init__()
    self.pam_in_conv, self.cam_in_conv = ConvNorm(cin, features), ConvNorm(cin, features)
    self.pam, self.cam = CrissCross(features, query_features), CosineChannel()
    self.pam_out_conv = ConvNorm(features, features)
    self.cam_out_conv = ConvNorm(features, features)
    self.conv_seg = conv(2, features, num_classes, 1)

  def forward(self, x):
    position = self.pam_out_conv(self.pam(self.pam(self.pam_in_conv(x))))
    return self.conv_seg(position + self.cam_out_conv(self.cam(self.cam_in_conv(x))))


class AuxiliaryHead(nn.Module):

  def __init__(self, cin, features, query_features, num_classes):
    super().__init__()
    self.reduce = ConvNorm(cin, features)
    self.affinity = StructureAffinity(features, query_features, num_classes)
    self.conv_seg = conv(2, features, num_classes, 1)

  def forward(self, x):
    return self.conv_seg(self.affinity(self.reduce(x))[0])


class SADANet(nn.Module):

  def __init__(self, channels, num_classes, width, head_features, auxiliary_features,
               query_features):
    super().__init__()
    self.backbone = ResNet50(channels, width, 8)
    self.decode_head = DualHead(32 * width, head_features, query_features, num_classes)
    self.auxiliary_head = AuxiliaryHead(16 * width, auxiliary_features, query_features, num_classes)

  def forward(self, x):
    def resize(x):
      return F.interpolate(x.float(), scale_factor=8, mode='bilinear')
    *_, middle, last = self.backbone(x)
    outputs = {'logits': resize(self.decode_head(last))}
    if self.training:
      outputs['aux_logits'] = resize(self.auxiliary_head(middle))
    return outputs


def pad_same(x, kernel_size, stride, value=0.0):
  """Pads like TensorFlow's 'same': of an odd number, one more pixel at the end."""
  sides = []
  for size in reversed(x.shape[2:]):
    total = max((math.ceil(size / stride) - 1) * stride + kernel_size - size, 0)
    sides += [total // 2, total - total // 2]
  return F.pad(x, sides, value=value)


class Separable(nn.Module):

  def __init__(self, cin, cout):
    super().__init__()
    self.depthwise = nn.Conv2d(cin, cin, 3, padding=1, groups=cin, bias=False)
    self.pointwise = conv(2, cin, cout, 1)

  def forward(self, x):
    return self.pointwise(self.depthwise(x))


class XceptionUNet(nn.Module):
  """Keras' Xception-style U-Net; its transposed convolutions at stride 1 are convolutions."""

  def __init__(self, channels, num_classes, features, levels):
    super().__init__()
    self.levels = levels
    self.entry = self._normed(nn.Conv2d(channels, features, 3, 2), features)
    cin = features
    for side, order, layer, stride in (('encoder', range(1, levels + 1), Separable, 2),
                                       ('decoder', range(levels, -1, -1),
                                        lambda cin, cout: conv(2, cin, cout), 1)):
      for level in order:
        cout = features * 2 ** level
        for part, width in ((1, cin), (2, cout)):
          self.add_module(f'{side}_{level}_{part}', self._normed(layer(width, cout), cout))
        self.add_module(f'{side}_{level}_residual', conv(2, cin, cout, 1, stride))
        cin = cout
    self.classifier = conv(2, cin, num_classes)

  def _normed(self, layer, features):
    return nn.ModuleDict({'conv': layer, 'bn': norm(2, features, 1e-3)})

  def _block(self, side, level, x):
    for part in (1, 2):
      layer = getattr(self, f'{side}_{level}_{part}')
      x = layer['bn'](layer['conv'](F.relu(x)))
    return x

  def forward(self, x):
    x = F.relu(self.entry['bn'](self.entry['conv'](pad_same(x, 3, 2))))
    for level in range(1, self.levels + 1):
      y = F.max_pool2d(pad_same(self._block('encoder', level, x), 3, 2, -math.inf), 3, 2)
      x = y + getattr(self, f'encoder_{level}_residual')(x)
    for level in range(self.levels, -1, -1):
      def double(x):
        return F.interpolate(x, scale_factor=2)
      y = double(self._block('decoder', level, x))
      x = y + getattr(self, f'decoder_{level}_residual')(double(x))
    return {'logits': self.classifier(x)}


class Attention(nn.Module):
  """An attention module applied to x + offset, so that a step needs the gradient of x."""

  def __init__(self, kind, channels, query_features):
    super().__init__()
    self.offset = nn.Parameter(torch.zeros(channels))
    if kind == 'channel':
      self.attention = Channel()
    else:
      module = CrissCross if kind == 'criss_cross' else Position
      self.attention = module(channels, query_features)

  def forward(self, x):
    return {'features': self.attention(x + self.offset[:, None, None])}


def create(fields, shape):
  """The network with the fields of a `systems.System`, for inputs [N, *S, C] of a shape."""
  fields = dict(fields)
  fields.pop('dropout', None)
  fields.pop('backbone', None)
  name, channels = fields.pop('name'), shape[-1]
  if 'backbone_width' in fields:
    fields['width'] = fields.pop('backbone_width')
  if name == 'attention':
    return Attention(channels=channels, **fields)
  if name == 'unet':
    return UNet(rank=len(shape) - 2, channels=channels, **fields)
  kinds = {'fpn': FPN, 'seam': FPN, 'sadanet': SADANet, 'xception_unet': XceptionUNet}
  return kinds[name](channels=channels, **fields)


@torch.no_grad()
def randomize(net, image):
  """Draws weights that all matter and saturate no softmax, and statistics of the image."""
  torch.manual_seed(0)
  norms = {id(module.weight) for module in net.modules() if hasattr(module, 'running_var')}
  for name, weight in net.named_parameters():
    if name.endswith('gamma'):
      weight.fill_(0.5)
    elif name.endswith('temperature'):
      weight.fill_(10.0)
    elif id(weight) in norms:
      weight.uniform_(0.5, 1.5)
    elif weight.ndim > 1:
      weight.normal_(0, math.sqrt(2 / weight[0].numel()))
    else:
      weight.normal_(0, 0.1)
    if 'query_' in name or 'key_' in name:
      weight.mul_(0.1)
    elif 'cam_in_conv.bn' in name:
      weight.mul_(0.05)
    elif '.bn3.' in name:  # else 16 residual blocks amplify rounding errors by thousands
      weight.mul_(0.2)
  for module in net.modules():
    if hasattr(module, 'running_var'):
      module.momentum = 1.0
  net.train()(image)
  for module in net.modules():
    if hasattr(module, 'running_var'):
      module.momentum = 0.1
