"""What helps where a model can't be captured, by what its code was doing when `torch.export` gave up."""

import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch.nn.modules import rnn

CONTROL_FLOW = "Control flow or shapes that depend on the data can't be captured"


Frames = Sequence[traceback.FrameSummary]


@dataclass(frozen=True)
class Advice:
    """What helps, and where.

    Attributes:
        fits: tells, from the frames that were at work and the error's text, whether it is this.
        text: what to change.
    """

    fits: Callable[[Frames, str], bool]
    text: str


def _compares_masks(frames: Frames, _text: str) -> bool:
    return any(frame.name == "_detect_is_causal_mask" for frame in frames)


def _packs(frames: Frames, text: str) -> bool:
    """Tells whether sequences are packed: by name, or by a recurrent layer whose batch is one of their numbers."""
    inside = any(frame.filename == rnn.__file__ for frame in frames)
    return (inside and "FakeTensor" in text) or any(
        word in f"{frame.name} {frame.line}"
        for frame in frames
        for word in ("pack_padded", "pad_packed", "PackedSequence")
    )


KNOWN = (
    Advice(
        _compares_masks,
        "PyTorch's transformer layers compare a mask with the causal one unless they are told whether it is: pass "
        "tgt_is_causal=True or False beside tgt_mask (src_is_causal beside src_mask, is_causal beside mask).",
    ),
    Advice(
        _packs,
        "Packed sequences have shapes that depend on the lengths: run the recurrent layer over the padded sequence, set "
        "what lies behind each end to zero with torch.arange(x.shape[1]) < lengths[:, None], and take the last step with "
        "y.gather(1, …); padding behind a sequence changes none of the steps before it in the forward direction.",
    ),
    Advice(
        lambda _frames, text: "maximum()" in text or "minimum()" in text,
        "Python's max() and min() look at a tensor's values, and so does .item(): don't cut a batch to its longest sequence, "
        "but keep the padded length, x.shape[1], and mask with torch.arange(x.shape[1]) < lengths[:, None].",
    ),
    Advice(
        lambda _frames, text: "data-dependent" in text or "DataDependent" in text,
        ".item(), .tolist(), int(), float() and `if` on a tensor read its values: index with the tensor itself (x[:, indices], "
        "x.gather(…), not x[:, indices.tolist()]), choose with torch.where, and keep shapes independent of values.",
    ),
)


def advice(error: BaseException) -> str:
    """Returns what helps against an error of `torch.export`, or what is true of all of them."""
    cause = error.__cause__ or error
    frames = traceback.extract_tb(cause.__traceback__)
    text = f"{type(cause).__name__}: {cause}"
    fitting = (one.text for one in KNOWN if one.fits(frames, text))
    return next(fitting, f"{CONTROL_FLOW}; move them out of the captured part.")
