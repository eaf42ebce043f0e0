"""How much noise is in a latent at each timestep, and conversions between a network's outputs.

A variance-preserving process mixes a clean latent x0 with noise ε:

    x_t = √ᾱ_t · x0 + √(1-ᾱ_t) · ε          t = 0 .. T-1,  ᾱ_t = Π_{i≤t} (1-β_i)

A network predicts either ε or the velocity v = √ᾱ_t ε - √(1-ᾱ_t) x0 (Salimans and Ho 2022); each gives the
other and x0 once x_t is known. Everything the rest of smpo needs to know about ᾱ and about the
parameterisation is in `NoiseSchedule`.

The table is float64. Coefficients such as √(1-ᾱ_t) are formed in the table's precision and rounded *once*, to
the latent's dtype. The official SmPO code rounds ᾱ itself to float16: 1-ᾱ_t is then wrong by 15 % at t = 0.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from smpo.maths.known_schedulers import unusable_scheduler

Prediction = Literal["epsilon", "v_prediction"]
Compare = Literal["epsilon", "output"]


# Compared by identity: an elementwise == of two tables has no truth value.
@dataclass(frozen=True, eq=False)
class NoiseSchedule:
    """The table of ᾱ and the network's parameterisation.

    `alphas_cumprod`: [T], decreasing, in [0, 1); float64 on the CPU until `to` moves it.
    The last entry may be 0 (zero terminal SNR); then only v-prediction makes sense at t = T-1.
    `compare`: in which space errors are compared, that of the noise, or that of the network's own output. They are
    the same for noise predictions; for velocities the second weighs an error by 1/ᾱ_t more (method 8), so that β has
    another meaning, and doesn't fall silent where ᾱ_t = 0.
    """

    alphas_cumprod: Tensor
    prediction: Prediction = "epsilon"
    compare: Compare = "epsilon"

    def __post_init__(self) -> None:
        table = self.alphas_cumprod
        if table.ndim != 1 or table.numel() == 0 or not table.is_floating_point():
            raise ValueError("alphas_cumprod must be a non-empty one-dimensional floating-point tensor.")
        if self.prediction not in get_args(Prediction):
            raise ValueError(
                f"prediction type {self.prediction!r} is not supported; use one of {get_args(Prediction)}."
            )

    @cached_property
    def ends_in_noise(self) -> bool:
        """Whether velocities are predicted up to ᾱ = 0, where they say nothing about the noise."""
        return self.prediction == "v_prediction" and bool(self.alphas_cumprod[-1] == 0)

    # ---- where the table comes from -----------------------------------------------------------------------

    @classmethod
    def from_betas(
        cls,
        betas: Tensor | Sequence[float],
        *,
        prediction: Prediction = "epsilon",
        zero_terminal_snr: bool = False,
    ) -> "NoiseSchedule":
        """ᾱ_t = Π (1-β_i) in float64. Raises ValueError unless every β is in (0, 1)."""
        b = torch.as_tensor(betas, dtype=torch.float64, device="cpu")
        if b.ndim != 1 or not bool(((b > 0) & (b < 1)).all()):
            raise ValueError("betas must be a one-dimensional list of numbers strictly between 0 and 1.")
        table = torch.cumprod(1 - b, dim=0)
        return cls(_zero_terminal(table) if zero_terminal_snr else table, prediction)

    @classmethod
    def linear(cls, T: int = 1000, beta_start: float = 1e-4, beta_end: float = 0.02, **options: Any) -> "NoiseSchedule":
        """β rises linearly (Ho et al. 2020). `options` as in `from_betas`."""
        return cls.from_betas(torch.linspace(beta_start, beta_end, T, dtype=torch.float64), **options)

    @classmethod
    def scaled_linear(
        cls, T: int = 1000, beta_start: float = 0.00085, beta_end: float = 0.012, **options: Any
    ) -> "NoiseSchedule":
        """√β rises linearly: latent diffusion, with SD 1.5's and SDXL's numbers as defaults."""
        root = torch.linspace(math.sqrt(beta_start), math.sqrt(beta_end), T, dtype=torch.float64)
        return cls.from_betas(root.square(), **options)

    @classmethod
    def squared_cosine(cls, T: int = 1000, *, cap: float = 0.999, **options: Any) -> "NoiseSchedule":
        """ᾱ follows a squared cosine, β capped (Nichol and Dhariwal 2021); diffusers' squaredcos_cap_v2."""
        u = torch.arange(T + 1, dtype=torch.float64) / T
        bar = torch.cos((u + 0.008) / 1.008 * (math.pi / 2)).square()
        return cls.from_betas((1 - bar[1:] / bar[:-1]).clamp(max=cap), **options)

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "NoiseSchedule":
        """Read a diffusers scheduler config (DDPM, DDIM, PNDM, Euler ...; they share these keys).

        Missing keys take DDIMScheduler's defaults. diffusers builds the table in float32, so the two differ
        by up to 5e-7. Raises ValueError for schedulers without an ᾱ table that is known (EDM, flow matching), for zero
        terminal SNR with predicted noise, and for unknown schedules and prediction types.
        """
        if reason := unusable_scheduler(config):
            raise ValueError(reason)
        options: dict[str, Any] = {
            "prediction": config.get("prediction_type", "epsilon"),
            "zero_terminal_snr": bool(config.get("rescale_betas_zero_snr", False)),
        }
        trained = config.get("trained_betas")
        if trained is not None:
            return cls.from_betas(trained, **options)
        T = int(config.get("num_train_timesteps", 1000))
        ends = float(config.get("beta_start", 1e-4)), float(config.get("beta_end", 0.02))
        kind = config.get("beta_schedule", "linear")
        if kind == "linear":
            return cls.linear(T, *ends, **options)
        if kind == "scaled_linear":
            return cls.scaled_linear(T, *ends, **options)
        if kind == "squaredcos_cap_v2":
            return cls.squared_cosine(T, **options)
        raise ValueError(
            f"beta_schedule {kind!r} is not supported; use linear, scaled_linear, squaredcos_cap_v2 "
            "or give trained_betas."
        )

    # ---- reading it ---------------------------------------------------------------------------------------

    @property
    def T(self) -> int:
        """Number of training timesteps."""
        return int(self.alphas_cumprod.numel())

    def to(self, device: torch.device | str) -> "NoiseSchedule":
        """The same schedule with its table on `device`. Do this once: a CPU table makes every call wait."""
        # Apple's GPUs have no float64.
        dtype = torch.float32 if torch.device(device).type == "mps" else self.alphas_cumprod.dtype
        return replace(self, alphas_cumprod=self.alphas_cumprod.to(device, dtype))

    def abar_exact(self, t: Tensor, like: Tensor) -> Tensor:
        """ᾱ_t per sample, [N] -> [N, 1, ..., 1] against `like` [N, ...], in the table's own precision.

        For forming coefficients. Raises IndexError (a device assertion on a GPU) for t outside 0..T-1.
        """
        table = self.alphas_cumprod
        value = table.index_select(0, carried(t, table.device))
        return value.to(like.device).reshape(-1, *(1,) * (like.ndim - 1))

    def abar(self, t: Tensor, like: Tensor) -> Tensor:
        """`abar_exact` rounded to the dtype of `like`. For weights; form coefficients from the exact one."""
        return self.abar_exact(t, like).to(like.dtype)

    def coefficients(self, t: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        """(√ᾱ_t, √(1-ᾱ_t)), each [N, 1, ..., 1] in the dtype of `like`, rounded only at the end."""
        a = self.abar_exact(t, like)
        return a.sqrt().to(like.dtype), (1 - a).sqrt().to(like.dtype)

    # ---- conversions: all tensors [N, ...], t an integer tensor [N] ----------------------------------------

    def add_noise(self, x0: Tensor, eps: Tensor, t: Tensor) -> Tensor:
        """x_t = √ᾱ_t x0 + √(1-ᾱ_t) ε."""
        signal, noise = self.coefficients(t, x0)
        return signal * x0 + noise * eps

    def noise_between(self, x0: Tensor, x_t: Tensor, t: Tensor, *, half: bool = False) -> Tensor:
        """τ = (x_t - √ᾱ_t x0) / √(1-ᾱ_t), the noise that turns x0 into x_t.

        Inputs below float32 are widened first: at t = 0 the division magnifies rounding 34 times. `half` rounds ᾱ_t
        and all that is made of it to float16, for comparison with the official code.
        """
        x0, x_t = widen(x0), widen(x_t)
        signal, noise = self.coefficients(t, x0)
        if half:
            a = self.abar_exact(t, x0).half()
            signal, noise = a.sqrt().to(x0.dtype), (1 - a).sqrt().to(x0.dtype)
        return (x_t - signal * x0) / noise

    def epsilon(self, model_output: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        """ε̂ from the network's output: itself, or √ᾱ_t v̂ + √(1-ᾱ_t) x_t. Finite at ᾱ = 0."""
        if self.prediction == "epsilon":
            return model_output
        signal, noise = self.coefficients(t, x_t)
        return signal * model_output + noise * x_t

    def x0(self, model_output: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        """x̂0 from the network's output: (x_t - √(1-ᾱ_t) ε̂)/√ᾱ_t, or √ᾱ_t x_t - √(1-ᾱ_t) v̂.

        At ᾱ_t = 0 a noise prediction has no information on x0 and the result isn't finite; v stays finite.
        """
        signal, noise = self.coefficients(t, x_t)
        if self.prediction == "epsilon":
            return (x_t - noise * model_output) / signal
        return signal * x_t - noise * model_output

    def compared(self, model_output: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        """A prediction in the space in which errors are compared."""
        return model_output if self.compare == "output" else self.epsilon(model_output, x_t, t)

    def compared_target(self, x0: Tensor, eps: Tensor, t: Tensor) -> Tensor:
        """What `compared` should have been at x_t = add_noise(x0, ε, t)."""
        return self.target_from_noise(x0, eps, t) if self.compare == "output" else eps

    def target_from_noise(self, x0: Tensor, eps: Tensor, t: Tensor) -> Tensor:
        """What the network should output at x_t = add_noise(x0, ε, t): ε, or v = √ᾱ_t ε - √(1-ᾱ_t) x0.

        Comparing in v-space weights the squared error by 1/ᾱ_t relative to ε-space at the same x_t.
        """
        if self.prediction == "epsilon":
            return eps
        signal, noise = self.coefficients(t, x0)
        return signal * eps - noise * x0


def sent(values: Sequence[int], device: torch.device) -> Tensor:
    """Integers from the host to a device, without waiting for it."""
    return carried(torch.tensor(values, dtype=torch.int64), device)


def carried(x: Tensor, device: torch.device) -> Tensor:
    """`x` on `device`. From host to GPU without a wait; from GPU to host with one."""
    return x.to(device, non_blocking=device.type == "cuda")


def widen(x: Tensor) -> Tensor:
    """At least float32: half precision is for networks, not for differences of their outputs."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def exact(x: Tensor) -> Tensor:
    """`x` in float64, on its device; Apple's GPUs have no float64, so what lies on one comes to the CPU."""
    return (x.cpu() if x.device.type == "mps" else x).double()


def _zero_terminal(table: Tensor) -> Tensor:
    """Shift and scale √ᾱ so that the last entry is 0 and the first is kept (Lin et al. 2023, algorithm 1)."""
    root = table.sqrt()
    first, last = root[0], root[-1]
    return ((root - last) * (first / (first - last))).square()
