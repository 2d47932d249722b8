"""Number formats: what matrix products run in, and what sums are taken in."""

from __future__ import annotations

import torch
from torch import Tensor

from mlcil.errors import UserError

PRECISIONS = ("auto", "fp32", "bf16", "fp16")


def at_least_float32(x: Tensor) -> Tensor:
    """Half precision to float32; float32 and float64 unchanged."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def corrected(logits_BC: Tensor, correction_C2: Tensor | None) -> Tensor:
    """Logits times a scale plus a shift a class (C, 2); as they are for ``None``."""
    if correction_C2 is None:
        return logits_BC
    correction_C2 = correction_C2.to(logits_BC)
    return logits_BC * correction_C2[:, 0] + correction_C2[:, 1]


def autocast(device: torch.device | str, dtype: torch.dtype) -> torch.autocast:
    """Autocast to ``dtype`` on that device; nothing happens for float32."""
    return torch.autocast(torch.device(device).type, dtype=dtype, enabled=dtype != torch.float32)


def resolve_precision(precision: str, device: torch.device | str) -> torch.dtype:
    """The dtype matrix products run in.

    ``auto`` is bf16 where the hardware multiplies it natively, fp16 on older GPUs, and fp32 elsewhere.

    Raises:
        UserError: an unknown name, or fp16 on the CPU.
    """
    kind = torch.device(device).type
    if precision not in PRECISIONS:
        raise UserError(f"precision {precision!r} is unknown; use one of {', '.join(PRECISIONS)}")
    if precision == "fp16" and kind == "cpu":
        raise UserError("precision 'fp16' does not train on the CPU; use 'bf16', 'fp32' or 'auto'")
    if precision == "auto":
        if kind == "cuda":
            precision = "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
        else:
            native = bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
            precision = "bf16" if native else "fp32"
    return {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
