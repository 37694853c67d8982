"""Few-shot segmentation methods, and how to add your own: `Method`, `register_method`."""

from kshot.methods.base import METHODS, Method, register_method
from kshot.methods.config import ModelConfig
from kshot.methods.hsnet import HSNet
from kshot.methods.prototype import Prototype
from kshot.methods.two_pass import TwoPass

__all__ = ["METHODS", "HSNet", "Method", "ModelConfig", "Prototype", "TwoPass", "register_method"]
