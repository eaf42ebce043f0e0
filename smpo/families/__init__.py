"""Live models: what a model recipe brings into memory. Each module is one family, behind `kinds.Denoiser`."""
