"""Benchmarks, which are part of the repository and not of the package.

`python -m benchmarks` (or `spinejax bench`) measures time and memory beside an independent PyTorch
implementation. `systems` lists what is measured. `harness` runs each side in a process of its own
(`worker`): `spinejax_side`, `torch_side` with the modules of `torch_reference`, and `plain_side`
for plain Flax. `pieces` builds the parts without a PyTorch counterpart. The other commands are
modules to run, such as `python -m benchmarks.growth --help`.
"""
