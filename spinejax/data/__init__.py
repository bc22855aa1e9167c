"""Images and labels on their way to the network: files, datasets, batches, augmentation."""
