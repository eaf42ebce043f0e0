"""From a spec to live objects: device, data, scores, caches, model, optimiser and session."""
