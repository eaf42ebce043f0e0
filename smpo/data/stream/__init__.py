"""From pairs to the micro-batches of an update: order, augmentation, buckets, encodings."""
