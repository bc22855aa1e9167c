import flax.linen as nn
import jax.numpy as jnp
from typing import Any
from spinejax.models import layers
class Block(nn.Module):
  features:int
  @nn.compact
  def __call__(self,x,train):
    for i in (1,2):
      x=layers.Conv(self.features,name=f'conv{i}',kernel_init=layers.kaiming_fan_in)(x)
      x=nn.relu(layers.BatchNorm(name=f'bn{i}')(x,train=train))
    return x
class Up(nn.Module):
  features:int
  @nn.compact
  def __call__(self,x,skip,train):
    x=layers.ConvTranspose(self.features,name='upsample')(x)
    for i in (1,2):
      x=layers.Conv(self.features,name=f'conv{i}',kernel_init=layers.kaiming_fan_in)([skip,x] if i==1 else x)
      x=nn.relu(layers.BatchNorm(name=f'bn{i}')(x,train=train))
    return x
class UNet(nn.Module):
  num_classes:int
  features:int=64
  levels:int=4
  @nn.compact
  def __call__(self,x,*,train):
    sk=[]
    for i in range(self.levels):
      x=Block(self.features*2**i,name=f'down_{i}')(x,train); sk.append(x); x=layers.max_pool(x)
    x=Block(self.features*2**self.levels,name=f'down_{self.levels}')(x,train)
    for i in reversed(range(self.levels)):
      x=Up(self.features*2**i,name=f'up_{i}')(x,sk[i],train)
    return {'logits':layers.Conv(self.num_classes,1,name='classifier',kernel_init=layers.classifier_init)(x)}
