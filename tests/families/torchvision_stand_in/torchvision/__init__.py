"""The few functions of torchvision by which transformers prepares pictures, where torchvision cannot be installed.

Put the directory above on PYTHONPATH: transformers looks for torchvision when it is imported, and then prepares
every picture in this way. What there is computes what torchvision computes of tensors.
"""

__version__ = "0.26.0"
