"""The method's equations as pure functions of tensors.

This file imports nothing, since `smpo plan` imports `smpo.maths.hops` without torch.

    hops        the levels that an inversion visits, and its network passes (no torch)
    hop_plan    which samples move in which hop, computed before the first one
    schedule    noise levels, and the conversions between noise, velocity and clean latent
    renoise     the fixed-point estimate of a hop's direction
    inversion   DDIM inversion with ReNoise, and its mirror, DDIM sampling
    flow        the same two for rectified flow
    smoothing   scores and votes to the probability that an image is preferred
    losses      denoising errors, the implicit margin, and losses that are functions of it
    baselines   objectives that need something other than the margin
"""
