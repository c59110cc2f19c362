"""Our losses and metrics beside those of MONAI, torchmetrics, smp and PyTorch.

    python -m tests.peers

prints where the definitions differ, on inputs as people pass them. The tests hold the
table: a pair differs in the scenes that its row names, and in no other.
"""
