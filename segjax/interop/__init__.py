"""Weights of other systems, as variables of ours."""

from segjax.interop.files import read_tensors as read_tensors
from segjax.interop.folder import load as load
from segjax.interop.folder import save as save
from segjax.interop.init_from import init_from as init_from
from segjax.interop.torchvision import from_torchvision as from_torchvision
from segjax.interop.torchvision import ignored_keys as ignored_keys
