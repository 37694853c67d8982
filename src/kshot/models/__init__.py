"""The network of the paper, one file per step.

    backbones -> hypercorrelation -> encoder (conv4d) -> decoder -> fusion with the base learner's map

Each file computes its step as the paper prints it. `kernels` computes the same numbers faster and is used by
default; `kernels.disabled()` switches it off.

A name's suffix gives its axes, as in `cosines_BHWUV`:

    B batch                       H W query rows and columns
    K masks of one support        U V support rows and columns
    L taps of a stage             C O input and output channels
"""
