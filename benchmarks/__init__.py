"""Speed and memory of spinejax beside an independent PyTorch, outputs compared first.

`systems` says what is measured, `harness` runs the two sides in turns, each in a process of its own
that `worker` serves: `spinejax_side` with spinejax, `torch_side` with the plain modules of
`torch_reference`. `pieces` is what has no PyTorch beside it.
"""
