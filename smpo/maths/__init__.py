"""The method's equations, with nothing round them: pure functions of tensors.

Nothing is imported here on purpose: `smpo plan` reads `smpo.maths.hops` and must not load torch.

    counting    how many network passes an inversion costs (no torch)
    schedule    noise levels, and the conversions between noise, velocity and clean latent
    renoise     the fixed-point estimate of a hop's direction
    noising     DDIM inversion with ReNoise, and its mirror, DDIM sampling
    flow        the same two for rectified flow
    smoothing   scores and votes to the probability that an image is preferred
    losses      denoising errors, the implicit margin, and losses that are functions of it
    baselines   objectives that need something other than the margin
"""
