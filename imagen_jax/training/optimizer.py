"""Adafactor and Adam with warmup and decay, as the paper trains its networks."""

import jax
import optax

# Updates done -> learning rate.
Schedule = optax.Schedule

KINDS = ("adam", "adafactor")
DECAYS = ("cosine", "linear", "constant")


def learning_rate(
    peak: float, *, warmup_steps: int, decay: str, total_steps: int
) -> Schedule:
    """Linear warmup from 0 to `peak`, then decay to 0 at `total_steps`.

    The paper's listings give 10,000 steps of warmup and a cosine over all
    2.5M steps (Saharia et al. 2022, appendix F).

    Args:
      peak: the highest rate.
      warmup_steps: length of the warmup; 0 starts at the peak.
      decay: "cosine", "linear", or "constant" (stays at the peak).
      total_steps: warmup and decay together.
    """
    if decay not in DECAYS:
        raise ValueError(f"Optimizer: decay must be one of {DECAYS}, got {decay!r}.")
    if not 0 <= warmup_steps <= total_steps:
        raise ValueError(
            f"Optimizer: warmup_steps must lie in [0, total_steps = {total_steps}], "
            f"got {warmup_steps}."
        )
    rest = max(total_steps - warmup_steps, 1)
    # Differs: the listings print end_value=2500000, which would be a learning rate of
    # two and a half million; taken as a slip for 0.
    after = {
        "cosine": optax.cosine_decay_schedule(peak, rest),
        "linear": optax.linear_schedule(peak, 0.0, rest),
        "constant": optax.constant_schedule(peak),
    }[decay]
    if warmup_steps == 0:
        return after
    warmup = optax.linear_schedule(0.0, peak, warmup_steps)
    return optax.join_schedules([warmup, after], [warmup_steps])


def make(
    kind: str,
    *,
    schedule: Schedule,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    clip_norm: float | None = None,
    weight_decay: float = 0.0,
) -> optax.GradientTransformation:
    """The optimizer of one network.

    The base trains with Adafactor at optax's defaults, the super-resolution networks
    with Adam at b1 0.9, b2 0.999, eps 1e-8; neither decays weights
    (Saharia et al. 2022, section 4.1 and appendix F).

    Args:
      kind: "adafactor" or "adam".
      schedule: updates done -> learning rate.
      b1: Adam's decay of the first moment (Adafactor has none).
      b2: Adam's decay of the second moment (Adafactor has its own schedule).
      eps: Adam's floor of the second moment's root.
      clip_norm: largest global norm of the gradient; None does not clip.
      weight_decay: on parameters of two or more axes; scaled by the learning rate
        in Adam (AdamW), but not in Adafactor, as optax defines them.
    """
    if kind not in KINDS:
        raise ValueError(f"Optimizer: kind must be one of {KINDS}, got {kind!r}.")
    if clip_norm is not None and clip_norm <= 0:
        raise ValueError(
            f"Optimizer: clip_norm must be positive, or None for no clipping, "
            f"got {clip_norm}."
        )

    def matrices(params):
        return jax.tree.map(lambda p: p.ndim >= 2, params)

    if kind == "adafactor":
        rule = optax.adafactor(
            schedule,
            weight_decay_rate=weight_decay or None,
            weight_decay_mask=matrices,
        )
    elif weight_decay:
        rule = optax.adamw(
            schedule, b1=b1, b2=b2, eps=eps, weight_decay=weight_decay, mask=matrices
        )
    else:
        rule = optax.adam(schedule, b1=b1, b2=b2, eps=eps)
    # Paper silent: clipping. NeMo's Imagen clips the global norm at 1.
    if clip_norm is None:
        return rule
    return optax.chain(optax.clip_by_global_norm(clip_norm), rule)
