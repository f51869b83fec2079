# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""What `benchmarks/compare.py` is made of.

`cases` says what is measured, `inputs` makes the numbers that both sides get, `ours` and `theirs`
do the work, each in a process of its own (`worker`), `turns` lets these take turns, `programs`
does the same with whole programs, `agreement` holds their results against each other, `table`
writes down what was measured.
"""
