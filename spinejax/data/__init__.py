"""Images and labels on their way to the network: files, datasets, batches, augmentation."""
from spinejax.data.datasets import DATASETS, load_dataset

__all__ = ['DATASETS', 'load_dataset']
